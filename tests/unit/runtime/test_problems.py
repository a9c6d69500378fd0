import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header, Query
from pydantic import BaseModel, ConfigDict

from runtime.failures import OutcomeUnknown, Overloaded, Unavailable
from runtime.problems import MAX_FAULTS, Fault, Problem, answer_with_problems, problem_body
from tests.plain_http import PLAIN


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    numbers: list[int]


FAILURES: dict[str, Exception] = {
    "unavailable": Unavailable("postgresql://secret@db"),
    "overloaded": Overloaded("secret queue"),
    "unknown": OutcomeUnknown("secret connection"),
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    answer_with_problems(app)

    @app.post("/things/{number}")
    async def post(  # pyright: ignore[reportUnusedFunction]
        number: int, body: Body, limit: Annotated[int, Query()] = 1, x_size: Annotated[int, Header(alias="X-Size")] = 1
    ) -> int:
        await asyncio.sleep(0)
        return number + limit + x_size + len(body.numbers)

    @app.delete("/things/{number}")
    async def delete(number: int) -> int:  # pyright: ignore[reportUnusedFunction]
        return number

    @app.get("/failures/{name}")
    async def fail(name: str) -> None:  # pyright: ignore[reportUnusedFunction]
        raise FAILURES[name]

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://muster", verify=PLAIN, trust_env=False
    ) as client:
        yield client


def errors(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return response.json()["errors"]


def test_a_problem_says_what_rfc_9457_asks() -> None:
    problem = Problem(
        409, "taken", "Taken already", faults=[Fault(detail="is taken", code="taken", pointer="#/a")], members={"n": 1}
    )
    assert problem_body(problem) == {
        "type": "urn:muster:problem:taken",
        "title": "Conflict",
        "status": 409,
        "detail": "Taken already",
        "errors": [{"detail": "is taken", "code": "taken", "pointer": "#/a"}],
        "n": 1,
    }


def test_a_problem_without_faults_is_its_own() -> None:
    assert problem_body(Problem(404, "absent", "Nothing here"))["errors"] == [
        {"detail": "Nothing here", "code": "absent"}
    ]


async def test_every_fault_of_a_request_is_placed(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/things/x?limit=y", json={"numbers": [1, "two"], "a/b~ c": 1}, headers={"X-Size": "large"}
    )
    assert answer.status_code == 422
    places = {(error.get("pointer"), error.get("parameter")) for error in errors(answer)}
    assert places == {
        (None, "number"),
        (None, "limit"),
        (None, "X-Size"),
        ("#/numbers/1", None),
        ("#/a~1b~0%20c", None),
    }


async def test_the_answer_to_a_hopeless_body_is_bounded(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things/1", json={"numbers": [], **{str(n): n for n in range(2000)}})
    assert len(errors(answer)) == MAX_FAULTS


async def test_a_router_refusal_is_a_problem_too(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nowhere")
    assert (answer.status_code, errors(answer)[0]["code"]) == (404, "not_found")


async def test_a_wrong_method_is_told_all_the_right_ones(client: httpx.AsyncClient) -> None:
    answer = await client.put("/things/1")
    assert (answer.status_code, errors(answer)[0]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, POST"


@pytest.mark.parametrize(
    ("name", "code"), [("unavailable", "unavailable"), ("overloaded", "overloaded"), ("unknown", "outcome_unknown")]
)
async def test_a_failure_here_says_when_to_try_again_and_nothing_internal(
    client: httpx.AsyncClient, name: str, code: str
) -> None:
    answer = await client.get(f"/failures/{name}")
    assert (answer.status_code, errors(answer)[0]["code"]) == (503, code)
    assert answer.headers["retry-after"] == "1"
    assert "secret" not in answer.text
