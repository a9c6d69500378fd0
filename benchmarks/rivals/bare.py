"""What FastAPI alone costs: the same bodies and paths, validated by the same models, and nothing behind them.

One uvicorn process like each of Muster's, with the same collector settings. It answers a constant record, made into
JSON for every request, through the same kind of response.
"""

import gc
import sys
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
import uvicorn
from fastapi import Body, FastAPI, Query, Response
from seed import user_numbered

from command_api.bodies import ChangeUserBody, CreateUserBody
from events.record import record_of
from runtime.ids import new_id
from runtime.requests import StrictJsonRoute

RECORD: dict[str, Any] = record_of(user_numbered(0, new_id(), datetime.now(UTC)))
HEADERS = {"ETag": '"1"', "Event-Position": "1"}
# as long as that of a page sorted by time
CURSOR = "c" * 86

app = FastAPI()
app.router.route_class = StrictJsonRoute


def answer(status: int) -> Response:
    return Response(orjson.dumps(RECORD), status, HEADERS, "application/json")


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/users", status_code=201)
async def create_user(body: Annotated[CreateUserBody, Body()]) -> Response:
    assert body.email
    return answer(201)


@app.patch("/users/{user_id}")
async def patch_user(
    user_id: UUID, body: Annotated[ChangeUserBody, Body(media_type="application/merge-patch+json")]
) -> Response:
    assert user_id
    assert body.model_fields_set
    return answer(200)


@app.get("/users/{user_id}")
async def read_user(user_id: UUID) -> Response:
    assert user_id
    return answer(200)


@app.get("/users")
async def list_users(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
    page = {"users": [RECORD] * limit, "next_cursor": CURSOR}
    return Response(
        orjson.dumps(page), 200, {"Link": f'</users?limit={limit}&cursor={CURSOR}>; rel="next"'}, "application/json"
    )


if __name__ == "__main__":
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=int(sys.argv[1]),
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
            server_header=False,
        )
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    server.run()
