"""Calls that many tests make, and what every answer has in common."""

from typing import Any

import httpx

Record = dict[str, Any]


async def create(client: httpx.AsyncClient, email: str = "ada@example.com", **fields: object) -> Record:
    """Create a user and give the record that was answered."""
    answer = await client.post("/users", json={"email": email, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def errors(answer: httpx.Response, status: int) -> list[dict[str, Any]]:
    """The faults of a refusal, which is a problem in every respect."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:muster:problem:")
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert all(error["detail"] and error["code"] for error in problem["errors"])
    return problem["errors"]


def codes(answer: httpx.Response, status: int) -> list[str]:
    return [error["code"] for error in errors(answer, status)]
