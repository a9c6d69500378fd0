"""Projecting with the library `eventsourcing`: its runner, from a log that is full to a table with three indexes.

A process of its own: reads a LibraryProjection as JSON from stdin, writes a LibraryProjected to stdout.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing_log import Account, Accounts
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

# users saved in one transaction while the log is filled, which is not measured
AT_ONCE = 100
TIMEOUT = 600.0
TABLE = """
CREATE TABLE IF NOT EXISTS {}.users (
    id uuid PRIMARY KEY, email text, display_name text, status text, roles text[], attributes jsonb,
    created_at timestamptz, updated_at timestamptz
)
"""
CREATED = "CREATE INDEX IF NOT EXISTS users_created_at ON {}.users (created_at, id)"
EMAIL = "CREATE INDEX IF NOT EXISTS users_email ON {}.users (email)"
UPSERT = """
INSERT INTO {}.users VALUES (%(id)s, %(email)s, %(display_name)s, %(status)s, %(roles)s, %(attributes)s,
    %(created_at)s, %(updated_at)s)
ON CONFLICT (id) DO UPDATE SET email = excluded.email, display_name = excluded.display_name,
    status = excluded.status, roles = excluded.roles, attributes = excluded.attributes,
    updated_at = excluded.updated_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryProjection:
    """`events` in all, as many of each of `users`; `environment` is the library's own, of an empty database."""

    environment: Mapping[str, str]
    record: Mapping[str, Any]
    changes: Mapping[str, Any]
    events: int
    users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryProjected:
    """`seconds` from the start of the runner to the last event's row; `cpu` is the share of one core that it took."""

    events: int
    seconds: float
    rate: float
    cpu: float


class UsersView(PostgresTrackingRecorder):
    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:  # noqa: ANN401 - the library's
        super().__init__(datastore, **kwargs)
        schema = Identifier(datastore.schema)
        self.sql_create_statements += [SQL(statement).format(schema) for statement in (TABLE, CREATED, EMAIL)]
        self._upsert = SQL(UPSERT).format(schema)

    def put(self, user_id: UUID, record: Mapping[str, Any], tracking: Tracking) -> None:
        """Row and place in one transaction, as the library recommends."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            row = {**record, "id": user_id, "attributes": Jsonb(record["attributes"])}
            cursor.execute(self._upsert, row, prepare=True)


class Users(Projection[UsersView]):
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:  # noqa: ANN401 - the library's
        self.view.put(domain_event.originator_id, domain_event.record, tracking)


def filled(asked: LibraryProjection) -> int:
    """Save the events; answers how many there are."""
    application = Accounts(env=dict(asked.environment))
    each = asked.events // asked.users
    for first in range(0, asked.users, AT_ONCE):
        accounts = [Account(asked.record) for _ in range(first, min(first + AT_ONCE, asked.users))]
        for account in accounts:
            for _ in range(each - 1):
                account.change(asked.record, asked.changes)
        application.save(*accounts)
    last = application.recorder.max_notification_id()
    application.close()
    assert last == each * asked.users, last
    return last


def projected(asked: LibraryProjection) -> LibraryProjected:
    last = filled(asked)
    cpu, began = time.process_time(), time.perf_counter()
    with ProjectionRunner(
        application_class=Accounts, projection_class=Users, view_class=UsersView, env=dict(asked.environment)
    ) as runner:
        runner.wait(last, timeout=TIMEOUT)
        seconds = time.perf_counter() - began
        cpu = (time.process_time() - cpu) / seconds
    return LibraryProjected(events=last, seconds=seconds, rate=last / seconds, cpu=cpu)


if __name__ == "__main__":
    json.dump(asdict(projected(LibraryProjection(**json.load(sys.stdin)))), sys.stdout)
