"""What subscribers can ask for: the schema that an event names, the AsyncAPI document, and its page."""

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from jsonschema import Draft202012Validator

from events.contract.schemas import ASYNCAPI, FOLDER, published
from query_api.app import create_app
from tests.apps import client_of
from tests.databases import MakeSettings
from tests.histories import History

Anyone = dict[str, str]
NO_TOKEN: Anyone = {"Authorization": ""}


class Page(HTMLParser):
    """What a page refers to, and where one can go within it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in {"href", "src"} and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.add(value)


async def test_an_event_names_where_its_schema_is(queries: httpx.AsyncClient, history: History) -> None:
    history.create([1])
    history.change([1], display_name="Changed")
    events: list[dict[str, Any]] = (await queries.get("/events")).json()
    for event in events:
        served = await queries.get(urlsplit(str(event["dataschema"])).path)
        assert served.status_code == 200
        assert served.headers["content-type"] == "application/schema+json"
        Draft202012Validator(served.json()).validate(event["data"])


async def test_every_published_version_is_served_as_it_was_committed(queries: httpx.AsyncClient) -> None:
    listed: dict[str, Any] = (await queries.get("/schemas", headers=NO_TOKEN)).json()
    files: set[str] = {urlsplit(one["url"]).path.rpartition("/")[2] for one in listed["schemas"]}
    assert files == {f"{name}.v{version}.json" for name, versions in published().items() for version in versions}
    for file in files:
        answer = await queries.get(f"/schemas/{file}", headers=NO_TOKEN)
        assert answer.content == (FOLDER / file).read_bytes()
        # relative to where it is served, the schema is what events name
        assert answer.json()["$id"] == file


@pytest.mark.parametrize("file", ["UserUpdated.v99.json", "..%2F..%2Fpyproject.toml", "UserUpdated", "%00"])
async def test_what_is_no_schema_is_not_found(queries: httpx.AsyncClient, file: str) -> None:
    answer = await queries.get(f"/schemas/{file}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_asyncapi_document_names_this_deployments_topics(make_settings: MakeSettings) -> None:
    settings = make_settings("muster_query", events_topic="people.events", snapshot_topic="people.now")
    async with client_of(create_app(settings)) as client:
        document = (await client.get(f"/schemas/{ASYNCAPI}", headers=NO_TOKEN)).json()
        assert {channel["address"] for channel in document["channels"].values()} == {"people.events", "people.now"}
        assert "people.events" in (await client.get("/asyncapi")).text


async def test_by_default_the_document_is_the_committed_one(queries: httpx.AsyncClient) -> None:
    settings_differ = (await queries.get(f"/schemas/{ASYNCAPI}")).json()
    assert settings_differ["asyncapi"] == "3.0.0"
    for message in settings_differ["components"]["messages"].values():
        reference = message["payload"].get("$ref")
        if reference is not None:
            assert (await queries.get(f"/schemas/{reference}")).status_code == 200


async def test_the_page_needs_nothing_from_elsewhere(queries: httpx.AsyncClient) -> None:
    answer = await queries.get("/asyncapi", headers=NO_TOKEN)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert urlsplit(link).netloc == ""
            assert (await queries.get(f"/{link}")).status_code == 200
    for told in ("ce_userversion", "user.deleted_at", "changes.email.old", "at least once", "Tombstone"):
        assert told.lower() in answer.text.lower()
