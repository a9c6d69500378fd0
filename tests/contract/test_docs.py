import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from command_api.bodies import ChangeMeBody, ChangeUserBody, CreateUserBody, Deleted, Written
from events.receipts import ReceiptBody
from events.record import ErasedRecord, UserRecord
from query_api.export import ExportBody
from query_api.history import DiffBody, HistoryBody
from query_api.listing import Page
from tests.plain_http import PLAIN


class Assets(HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for name in ("src", "href"):
            if tag != "a" and (value := values.get(name)):
                self.found.append(value)


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://muster", verify=PLAIN, trust_env=False
    ) as client:
        yield client


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def values(node: object) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value."""
    if isinstance(node, dict):
        held = cast("dict[str, Any]", node)
        yield held
        for child in held.values():
            yield from values(child)
    elif isinstance(node, list):
        for child in cast("list[Any]", node):
            yield from values(child)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_loads_only_what_the_app_itself_serves(stranger: httpx.AsyncClient, page: str) -> None:
    html = (await stranger.get(page)).text
    assets = Assets()
    assets.feed(html)
    assert any(asset.endswith(".js") for asset in assets.found)
    for asset in [*assets.found, "/openapi.json"]:
        assert asset.startswith("/")
        assert not asset.startswith("//")
        answer = await stranger.get(asset)
        assert answer.status_code == 200
        assert answer.content
    assert re.findall(r"""["'(](?:https?:)?//[^"')]*""", html) == []
    styles = [asset for asset in assets.found if asset.endswith(".css")]
    for style in styles:
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//", (await stranger.get(style)).text) == []


async def test_the_description_is_served_as_it_is(stranger: httpx.AsyncClient, document: dict[str, Any]) -> None:
    served = (await stranger.get("/openapi.json")).json()
    assert served == document
    assert served["openapi"].startswith("3.1")
    assert served["info"]["title"].startswith("Muster ")
    assert served["info"]["description"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {node["$ref"] for node in values(document) if "$ref" in node}
    for reference in references:
        assert reference.startswith("#/")
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        assert node


def test_no_schema_is_left_over(document: dict[str, Any]) -> None:
    references = {node["$ref"].rpartition("/")[2] for node in values(document) if "$ref" in node}
    assert document["components"]["schemas"].keys() == references


def test_every_operation_is_tagged_and_summed_up(document: dict[str, Any]) -> None:
    known = {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    names: list[str] = []
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["tags"], name
        assert set(operation["tags"]) <= known, name
        names.append(operation["operationId"])
    assert len(set(names)) == len(names)


def test_every_error_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert "500" in errors, name
        assert all(answer["description"] for answer in errors.values()), name
        contents = [answer["content"] for answer in errors.values()]
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
        assert contents == [problem] * len(contents), name


def test_every_protected_operation_says_what_it_refuses(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if operation["tags"] in (["users"], ["import"]):
            assert operation["security"], name
            assert operation["responses"].keys() >= {"401", "403", "422", "503"}, name
            assert ("{id}" in name) <= ("404" in operation["responses"]), name
            assert ("{id}" in name) <= ("410" in operation["responses"]), name
        if "requestBody" in operation:
            # a file may have any length
            sized = set[str]() if operation["tags"] == ["import"] else {"413"}
            assert operation["responses"].keys() >= {"400", "415"} | sized, name
            assert (operation["tags"] == ["users"]) <= ("409" in operation["responses"]), name


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        answers = [answer for status, answer in operation["responses"].items() if status < "300"]
        for part in [*answers, *([operation["requestBody"]] if "requestBody" in operation else [])]:
            for content in part.get("content", {}).values():
                schema = content.get("schema", {})
                if operation["tags"] == ["users"]:
                    for one in schema.get("anyOf", [schema]):
                        assert "$ref" in one, name
                        described = document["components"]["schemas"][one["$ref"].rpartition("/")[2]]
                        assert described.get("examples"), name


@pytest.mark.parametrize(
    "model",
    [
        *(ChangeMeBody, CreateUserBody, ChangeUserBody, Written, Deleted, UserRecord, ErasedRecord, Page),
        *(HistoryBody, DiffBody, ReceiptBody, ExportBody),
    ],
)
def test_examples_are_what_they_are_examples_of(model: type[BaseModel]) -> None:
    for example in model.model_json_schema()["examples"]:
        fields = model.model_validate(example).model_fields_set
        assert {model.model_fields[name].alias or name for name in fields} == example.keys()


def test_every_parameter_is_described_under_its_usual_name(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            where = f"{name}: {parameter['name']}"
            assert (parameter["in"] == "header") == parameter["name"][0].isupper(), where
            if parameter["in"] == "header":
                assert parameter["description"], where
