"""Server-Sent Events over a real connection: nothing lost, nothing twice, and nobody held up by somebody slow."""

import asyncio
import re
import resource
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.calls import codes
from tests.histories import History
from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess
from tests.tokens import authorized
from tests.waiting import eventually

ACCEPT = {"Accept": "text/event-stream"}


@pytest.fixture
def query_api(start_process: StartProcess) -> Process:
    return start_process("query_api", broker=False).wait_until_ready()


class Event:
    """One that arrived: `id` may come without data, which says how far the stream is."""

    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.comment = next((line[2:] for line in lines if line.startswith(":")), None)
        self.id = int(fields["id"]) if "id" in fields else None
        self.type = fields.get("event")
        self.data: dict[str, Any] | None = orjson.loads(fields["data"]) if "data" in fields else None


async def listen(url: str, headers: dict[str, str] | None = None, **parameters: object) -> AsyncGenerator[Event]:
    async with (
        httpx.AsyncClient(
            headers=authorized() | ACCEPT | (headers or {}), timeout=30, verify=PLAIN, trust_env=False
        ) as client,
        client.stream("GET", f"{url}/events", params=parameters) as answer,  # pyright: ignore[reportArgumentType]
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines: list[str] = []
        async for line in answer.aiter_lines():
            if line:
                lines.append(line)
            elif lines:
                yield Event(lines)
                lines = []


async def take(url: str, count: int, headers: dict[str, str] | None = None, **parameters: object) -> list[Event]:
    found: list[Event] = []
    async with aclosing(listen(url, headers, **parameters)) as events:  # pyright: ignore[reportArgumentType]
        async for event in events:
            if event.data is not None:
                found.append(event)
                if len(found) == count:
                    break
    return found


def ids(events: list[Event]) -> list[int | None]:
    return [event.id for event in events]


async def test_what_was_and_what_comes_arrives_in_order(query_api: Process, history: History) -> None:
    history.create(range(5))
    listening = asyncio.create_task(take(query_api.url, 8))
    await take(query_api.url, 5)
    for number in range(5, 8):
        history.create([number])
    events = await listening
    assert ids(events) == list(range(1, 9))
    assert events[0].type == "muster.UserCreated.v1"
    assert events[7].data is not None
    assert events[7].data["data"]["user"]["display_name"] == "User 7"


async def test_a_client_that_comes_back_loses_nothing(query_api: Process, history: History) -> None:
    history.create(range(6))
    seen = ids(await take(query_api.url, 2))
    seen += ids(await take(query_api.url, 4, {"Last-Event-ID": str(seen[-1])}))
    assert seen == [1, 2, 3, 4, 5, 6]
    async with httpx.AsyncClient(headers=authorized() | ACCEPT, verify=PLAIN, trust_env=False) as client:
        answer = await client.get(f"{query_api.url}/events", headers={"Last-Event-ID": "abc"})
        assert codes(answer, 422) == ["bad_event_id"]


async def test_filters_hold_for_what_was_and_for_what_comes(query_api: Process, history: History) -> None:
    history.create(range(3))
    listening = asyncio.create_task(take(query_api.url, 3, types="UserUpdated", actor="development"))
    await take(query_api.url, 3)
    history.change([1], display_name="Once")
    history.create([7])
    history.change([1, 2], display_name="Twice")
    assert ids(await listening) == [4, 6, 7]


async def test_a_bounded_stream_ends_with_where_it_is(query_api: Process, history: History) -> None:
    history.create(range(3))
    until = history.owner.execute("SELECT recorded_at FROM log.events WHERE position = 3").fetchall()[0]["recorded_at"]
    history.change([0], display_name="Later")
    events = [event async for event in listen(query_api.url, until=until.isoformat(), types="UserCreated")]
    assert [event.id for event in events if event.data is not None] == [1, 2, 3]
    assert (events[-1].comment, events[-1].id) == ("that is all", 3)


async def test_it_ends_when_the_token_does(query_api: Process, history: History) -> None:
    history.create([1])
    token = authorized(exp=int(time.time()) + 3)
    events = [event async for event in listen(query_api.url, token)]
    assert [event.id for event in events if event.data is not None] == [1]
    assert events[-1].comment == "the token is not valid any more"


async def test_a_process_that_stops_says_so(query_api: Process, history: History) -> None:
    history.create([1])
    events: list[Event] = []

    async def read() -> None:
        events.extend([event async for event in listen(query_api.url)])

    reading = asyncio.create_task(read())
    await take(query_api.url, 1)
    assert await asyncio.to_thread(query_api.stop) == 0
    await reading
    assert (events[-1].comment, events[-1].id) == ("this process stops, come back", 1)


def connected_and_deaf(process: Process) -> socket.socket:
    """A listener that asks for everything and reads nothing."""
    host, port = process.url.removeprefix("http://").split(":")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect((host, int(port)))
    request = [f"{name}: {value}" for name, value in (authorized() | ACCEPT | {"Host": "muster"}).items()]
    deaf.sendall("\r\n".join(["GET /events HTTP/1.1", *request, "", ""]).encode())
    return deaf


def whole_ids(deaf: socket.socket) -> list[int]:
    """The ids of the whole events that arrived before the connection ended."""
    deaf.settimeout(30)
    received = b""
    while piece := deaf.recv(1 << 20):
        received += piece
    # chunks end anywhere but within an event's lines: each is sent as one
    return [int(found) for found in re.findall(rb"id: (\d+)\nevent: [^\n]+\ndata: [^\n]+\n\n", received)]


def resident(process: Process) -> int:
    """MiB."""
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


async def test_of_200_listeners_the_deaf_half_holds_nobody_up_and_is_cut_off_to_go_on_later(
    start_process: StartProcess, history: History
) -> None:
    query_api = start_process("query_api", broker=False, listener_timeout=6).wait_until_ready()
    history.create(range(50))
    before = resident(query_api)
    deaf = [connected_and_deaf(query_api) for _ in range(100)]
    try:
        listening = [asyncio.create_task(take(query_api.url, 350)) for _ in range(100)]
        await take(query_api.url, 50)
        for start in range(50, 350, 50):
            # a thread: the listeners are of this loop
            await asyncio.to_thread(history.create, range(start, start + 50), attributes={"filler": "x" * 4000})
        for events in await asyncio.gather(*listening):
            assert ids(events) == list(range(1, 351))
        # more than the system holds for any connection
        await asyncio.to_thread(history.create, range(350, 900), attributes={"filler": "x" * 8000})
        await asyncio.to_thread(eventually, lambda: query_api.log.read_text().count("cut off") == 100, timeout=30)
        assert resident(query_api) - before < 80
        seen = await asyncio.to_thread(whole_ids, deaf[0])
        assert 0 < len(seen) < 900
        assert seen == list(range(1, len(seen) + 1))
        rest = await take(query_api.url, 900 - len(seen), {"Last-Event-ID": str(seen[-1])})
        assert seen + ids(rest) == list(range(1, 901))
    finally:
        for one in deaf:
            one.close()
