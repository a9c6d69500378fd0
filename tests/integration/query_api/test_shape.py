"""A query API is ready when the table has all the columns that it reads."""

from typing import Any

import httpx
import psycopg
import pytest

from projector.read_model import SHAPE
from tests.calls import errors

Owner = psycopg.Connection[dict[str, Any]]


@pytest.mark.parametrize("shape", [SHAPE, SHAPE + 1])
async def test_the_shape_that_it_knows_and_a_newer_one_are_fine(
    queries: httpx.AsyncClient, owner: Owner, shape: int
) -> None:
    owner.execute("UPDATE read_model.builds SET shape = %s", (shape,))
    answer = await queries.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["parts"]["shape"] == "ready"


async def test_with_an_older_shape_it_is_not_ready_and_says_what_to_do(
    queries: httpx.AsyncClient, owner: Owner
) -> None:
    owner.execute("UPDATE read_model.builds SET shape = %s", (SHAPE - 1,))
    assert errors(await queries.get("/readyz"), 503) == [
        {
            "code": "shape",
            "detail": f"shape: the read model has shape {SHAPE - 1}, this version needs {SHAPE}:"
            " run `muster rebuild users`",
        }
    ]
