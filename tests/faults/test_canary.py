"""Canaries: unusual names that are written and used everywhere, then erased, and then looked for in every place."""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from confluent_kafka import admin as kafka_admin
from psycopg import sql

from events.topics import ROLLED_WITHIN
from tests.command_line import Operate
from tests.databases import MakeSettings
from tests.processes import Process, Stack
from tests.topics import records_of
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

Owner = psycopg.Connection[dict[str, Any]]

PASSWORD = "correct horse battery"
# nobody else is called so: in ASCII, in what JSON escapes, and beyond the basic plane
NAMES = ["Quuxwyvernholt", "Zvönřimączyk-Ωλγ", "Jinxqorvax \N{DRAGON}\N{SNOWMAN}"]
EMAILS = [f"canary-vexquill{number}@flimworble{number}.example" for number in range(len(NAMES))]
TEAMS = [f"Kroxblimp-{number}" for number in range(len(NAMES))]
RENAMED = [f"Wibblethrax-{number}" for number in range(len(NAMES))]
CANARIES = [*NAMES, *EMAILS, *TEAMS, *RENAMED, *(f"flimworble{number}" for number in range(len(NAMES)))]


def spellings(word: str) -> Iterator[bytes]:
    """A word in the encodings that a file or a record could hold it in."""
    for text in {word, word.lower(), word.upper(), word.casefold()}:
        plain = text.encode()
        yield plain
        yield text.encode("utf-16-le")
        yield text.encode("utf-16-be")
        yield json.dumps(text)[1:-1].encode()
        yield plain.hex().encode()
        yield plain.hex().upper().encode()
        # wherever in a longer text it begins, whole groups of three bytes are encoded alike
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + plain)
            yield encoded[4 if shift else 0 : -4]


FORMS = sorted({form for word in CANARIES for form in spellings(word)})


def seen_in(content: bytes) -> list[bytes]:
    return [form for form in FORMS if form in content]


def in_tables(owner: Owner) -> Iterator[str]:
    """Every column of every table of every schema, as text: the catalogue's and its statistics too."""
    tables = owner.execute(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm') AND has_table_privilege(c.oid, 'SELECT')"
    ).fetchall()
    for table in tables:
        query = sql.SQL("SELECT t::text AS row FROM {} t").format(sql.Identifier(table["schema"], table["name"]))
        for row in owner.execute(query).fetchall():
            if seen_in((row["row"] or "").encode()):
                yield f"{table['schema']}.{table['name']}"


def in_files(folder: Path, *, but: Iterable[str] = ()) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if file.is_file() and path.parts[0] not in but and seen_in(file.read_bytes()):
            yield str(path)


def people(stack: Stack) -> list[str]:
    """Users who are created, changed, logged in, looked for, refused, exported and listed: by every name they have."""
    ids: list[str] = []
    with stack.command.client() as commands, stack.query.client() as queries:
        for name, email, team, renamed in zip(NAMES, EMAILS, TEAMS, RENAMED, strict=True):
            body = {"email": email, "display_name": name, "attributes": {"team": team}, "password": PASSWORD}
            created = commands.post("/users", json=body, headers={"Idempotency-Key": f"create-{len(ids)}"})
            user_id = created.json()["id"]
            path = f"/users/{user_id}"
            ids.append(user_id)
            # what is refused
            assert commands.post("/users", json=body).status_code == 409
            assert commands.post("/users", json={**body, "status": name}).status_code == 422
            # what another device gets wrong, and the right one does not
            for password in ("wrong", PASSWORD):
                commands.post("/login", data={"username": email, "password": password})
            changed = commands.patch(path, json={"display_name": renamed})
            fresh = {"Min-Position": changed.headers["event-position"], "Prefer": "wait=30"}
            assert queries.get(path, headers=fresh).json()["display_name"] == renamed
            for parameters in ({"q": renamed}, {"email": email}, {"at_position": changed.headers["event-position"]}):
                assert queries.get("/users", params=parameters).json()["users"], parameters
            for read in ("history", "diff?from=1&to=2", "export"):
                assert queries.get(f"{path}/{read}").status_code == 200
            assert queries.get(f"/users/{email}").status_code == 422
            assert queries.get("/events", params={"user": user_id}).status_code == 200
    return ids


def heard(process: Process) -> None:
    """A listener who was there: the process keeps what it has read for them."""
    headers = {"Accept": "text/event-stream"}
    with process.client() as client, client.stream("GET", "/events", params={"after": 0}, headers=headers) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                return


def files_of(owner: Owner) -> Path | None:
    """The server's data directory, if it is on this machine."""
    folder = Path(owner.execute("SELECT current_setting('data_directory') AS folder").fetchall()[0]["folder"])
    return folder if folder.is_dir() else None


def configs(servers: str, topic: str) -> dict[str, str | None]:
    kafka: Any = kafka_admin
    admin = kafka.AdminClient({"bootstrap.servers": servers, "log_level": 0})
    resource = kafka.ConfigResource(kafka.ConfigResource.Type.TOPIC, topic)
    found = admin.describe_configs([resource])[resource].result(30)
    return {name: entry.value for name, entry in found.items()}


def test_an_erased_canary_is_nowhere(
    stack: Stack, operate: Operate, make_settings: MakeSettings, owner: Owner, tmp_path: Path
) -> None:
    settings = make_settings(broker=True)
    ids = people(stack)
    heard(stack.query)
    told = operate("replay", "--to-topic", f"{settings.events_topic}.before")
    assert told.status == 0, told.stderr
    assert operate("rebuild", "users", "--workers", "1").status == 0
    owner.execute("ANALYZE")
    assert {"read_model.users", "pg_catalog.pg_statistic"} <= set(in_tables(owner))
    # what is looked for below would be found
    owner.execute("CHECKPOINT")
    data = files_of(owner)
    assert data is None or list(in_files(data / "base"))

    with stack.command.client() as commands:
        for user_id in ids:
            assert commands.post(f"/users/{user_id}/erase").status_code == 202

    def complete() -> bool:
        return not owner.execute("SELECT 1 FROM log.erasures WHERE completed_at IS NULL").fetchall()

    eventually(complete, what="all erasures are complete", timeout=60)
    assert sorted(set(in_tables(owner))) == []

    # what is made of the log from now on
    told = operate("replay", "--to-topic", f"{settings.events_topic}.after")
    assert told.status == 0, told.stderr
    after = records_of(settings, f"{settings.events_topic}.after")
    assert len(after) == 3 * len(ids)
    assert seen_in(orjson.dumps([[record.headers, record.value] for record in after])) == []
    snapshot = {record.key: record.value for record in records_of(settings, settings.snapshot_topic)}
    assert snapshot == dict.fromkeys(ids)
    for kind in ("jsonl", "parquet"):
        told = operate("export", str(tmp_path / "exports" / kind), "--opened", "--format", kind)
        assert told.status == 0, told.stderr
    assert operate("rebuild", "users", "--workers", "1").status == 0
    assert list(in_files(tmp_path / "exports")) == []
    with stack.query.client() as queries:
        for user_id in ids:
            for path in ("", "/history", "/diff?from=1&to=2", "/export", "/erasure", "?version=1"):
                assert seen_in(queries.get(f"/users/{user_id}{path}").content) == [], path
        assert seen_in(queries.get("/events").content) == []
        assert seen_in(queries.get("/users", params={"at_position": 2}).content) == []
    logs = b"".join(process.log.read_bytes() for process in (stack.command, stack.query, stack.projector))
    assert seen_in(logs) == []

    # until when the topic holds what was published before is set, and stated
    history = configs(settings.kafka_bootstrap_servers, settings.events_topic)
    assert history["retention.ms"] == str(settings.topic_retention_hours * 3_600_000)
    assert history.get("segment.ms", "86400000") == str(int(ROLLED_WITHIN.total_seconds() * 1000))
    with stack.query.client() as client:
        receipt = client.get(f"/users/{ids[0]}/erasure").json()
    assert receipt["nothing_after"] is not None

    # the files of the database, but for the WAL, which BACKUP_RETENTION_DAYS bounds with the archive of it
    if data is None:
        pytest.skip("the server's files are not here to be looked at")
    owner.execute("VACUUM (FULL, ANALYZE)")
    # once: what was dropped is unlinked by the checkpoint after it
    owner.execute("CHECKPOINT")
    assert list(in_files(data, but=("pg_wal",))) == []
