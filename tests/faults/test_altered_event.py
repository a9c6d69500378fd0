"""An event in the log that cannot be opened: nothing is passed over, and writes go on."""

from typing import Any

import psycopg
import pytest

from tests.databases import MakeSettings
from tests.processes import StartProcess
from tests.topics import records_of
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def test_the_relay_stops_at_an_altered_event_and_goes_on_once_it_is_restored(
    start_process: StartProcess, make_settings: MakeSettings, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    silent = start_process("command_api", relay=False).wait_until_ready()
    with silent.client() as client:
        for number in range(3):
            assert client.post("/users", json={"email": f"user{number}@example.com"}).status_code == 201
    row = owner.execute("SELECT sealed FROM log.events WHERE position = 2").fetchone()
    assert row is not None
    owner.execute("UPDATE log.events SET sealed = %s WHERE position = 2", (row["sealed"][:-1] + b"?",))

    command = start_process("command_api").wait_until_ready()
    with command.client() as client:

        def relay() -> str:
            return str(client.get("/readyz").json()["parts"]["relay"])

        eventually(lambda: relay().startswith("halted"), what="the relay halts")
        assert client.post("/users", json={"email": "user3@example.com"}).status_code == 201
        owner.execute("UPDATE log.events SET sealed = %s WHERE position = 2", (row["sealed"],))
        eventually(lambda: relay() == "leading", what="the relay leads again")
    settings = make_settings(broker=True)
    eventually(
        lambda: sorted(record.position for record in records_of(settings, settings.events_topic)) == [1, 2, 3, 4],
        what="all is published",
    )
