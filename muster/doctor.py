"""`muster doctor`: looks at everything that a deployment needs, and says of each failure how to mend it."""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from rich.text import Text

from events.broker_connection import RIGHTS, Refusal, refusal_of
from events.fitting import email_index, keks_in_use, wrong_index_key
from events.keyring import BadKey, open_digester, open_keyring, read_key, read_keys
from events.topics import admin_client
from migrations.apply import OLDEST_SERVER
from muster.answers import Answer, Finding
from muster.failures import CannotRun
from muster.kek import check_kek
from muster.target import on_database, target_settings
from runtime.database import Connection
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.settings import BadSettings, Settings

State = Literal["ok", "warning", "failed"]

# seconds that two clocks may differ: tokens are taken with up to five of them
CLOCK_NOTICED, CLOCK_WRONG = 1.0, 5.0
BROKER_WITHIN: Final = 15.0
NO_ERROR: Final = 0

SERVER: Final = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int / 10000 AS major,
    current_user AS login, current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commits,
    to_regclass('log.events') IS NOT NULL AS begun,
    to_regclass('log.checkpoints') IS NOT NULL AS migrated
"""
# late: an event waits for its checkpoint longer than any does while the integrator and the broker are well
SIGNED: Final = """
SELECT t.origin, h.position, coalesce(c.size, 0) AS signed,
    coalesce(c.size, 0) < h.position AND EXISTS (
        SELECT 1 FROM log.events e
        WHERE e.position = coalesce(c.size, 0) + 1 AND e.recorded_at < now() - interval '1 minute'
    ) AS late
FROM log.head h LEFT JOIN log.tree t ON true
LEFT JOIN LATERAL (
    SELECT k.size FROM log.checkpoints k WHERE k.generation = t.generation ORDER BY k.size DESC LIMIT 1
) c ON true
"""
CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::double precision AS now"
LOG: Final = """
SELECT h.position, h.recorded_at > clock_timestamp() + interval '1 second' AS ahead,
    (SELECT p.partitions FROM log.partitioning p) AS partitions, (SELECT count(*) FROM log.parked) AS parked
FROM log.head h
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at; `remedy` says what to do about what is not ok."""

    name: str
    state: State
    found: str
    remedy: str | None = None


def examined() -> Answer:
    """Look at everything; a finding is what is to be mended."""
    checks = asyncio.run(_all())
    failed = [check.name for check in checks if check.state == "failed"]
    return Answer(
        result={"checks": [asdict(check) for check in checks]},
        words=_words(checks),
        findings=[Finding(code="to_be_mended", detail=f"to be mended: {', '.join(failed)}")] if failed else [],
    )


async def _all() -> list[Check]:
    try:
        settings = target_settings()
    except (BadSettings, CannotRun) as error:
        remedy = "set what it names (.env.example has every variable), or start the development stack: make run"
        return [Check(name="settings", state="failed", found=" ".join(str(error).split()), remedy=remedy)]
    checks = [Check(name="settings", state="ok", found=f"MUSTER_MODE is {settings.muster_mode}"), *_keys(settings)]
    return [*checks, *[check async for check in _database(settings)], *[check async for check in _broker(settings)]]


def _keys(settings: Settings) -> Iterator[Check]:
    production = settings.muster_mode == "production"
    others = {"KEKS_KNOWN": settings.keks_known, "EMAIL_INDEX_KEYS_KNOWN": settings.email_index_keys_known}
    told = {variable: keys for variable, keys in others.items() if keys is not None}
    for variable, key in {"KEK": settings.kek, "EMAIL_INDEX_KEY": settings.email_index_key, **told}.items():
        try:
            if variable in told:
                known = len(read_keys(key, variable=variable, production=production))
            else:
                known = len([read_key(key, variable=variable, production=production)])
        except BadKey as error:
            found, _, remedy = str(error).partition(": ")
            yield Check(name=variable, state="failed", found=found, remedy=remedy)
            continue
        file = os.environ.get(f"{variable}_FILE")
        if file is not None and Path(file).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            remedy = f"chmod 600 {file}"
            yield Check(name=variable, state="warning", found=f"{file} can be read by others", remedy=remedy)
        else:
            found = "a key of 32 bytes" if known == 1 else f"{known} keys of 32 bytes"
            yield Check(name=variable, state="ok", found=found)


async def _database(settings: Settings) -> AsyncIterator[Check]:
    try:
        rows = await on_database(settings, _look)
    except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
        remedy = "start PostgreSQL, and see that DATABASE_URL names its host, port, database, login and password"
        yield Check(name="database", state="failed", found=" ".join(str(error).split()), remedy=remedy)
        return
    server, difference = rows
    yield _server(server)
    yield _clock(difference)
    if not server["migrated"]:
        found = "the schema is an older version's" if server["begun"] else "the database has no schema of Muster's"
        yield Check(name="schema", state="failed", found=found, remedy="run `muster migrate` as the database's owner")
        return
    yield Check(name="schema", state="ok", found="of this version")
    if (server["fsync"], server["commits"]) != ("on", "on") and settings.muster_mode == "production":
        found = f"fsync is {server['fsync']}, synchronous_commit is {server['commits']}"
        remedy = "set both to on: what was acknowledged would be lost with the server's power"
        yield Check(name="durability", state="failed", found=found, remedy=remedy)
    else:
        yield Check(name="durability", state="ok", found="what is acknowledged is on disk")
    try:
        yield await on_database(settings, lambda connection: _log(connection, settings))
        yield await on_database(settings, _proofs)
    except psycopg.errors.InsufficientPrivilege:
        found = f"{server['login']} may not read it"
        yield Check(name="log", state="failed", found=found, remedy="set DATABASE_URL to the command API's login")
    except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
        yield Check(name="log", state="failed", found=" ".join(str(error).split()), remedy="see the server's log")


async def _look(connection: Connection) -> tuple[dict[str, Any], float]:
    server = (await (await connection.execute(SERVER)).fetchall())[0]
    asked = time.time()
    now: float = (await (await connection.execute(CLOCK)).fetchall())[0]["now"]
    return server, now - (asked + time.time()) / 2


def _server(server: dict[str, Any]) -> Check:
    found = f"PostgreSQL {server['version']}, as {server['login']}"
    if server["major"] < OLDEST_SERVER:
        return Check(name="database", state="failed", found=found, remedy=f"use PostgreSQL {OLDEST_SERVER} or newer")
    return Check(name="database", state="ok", found=found)


def _clock(difference: float) -> Check:
    found = f"the database's differs by {abs(difference):.1f} s from this machine's"
    if abs(difference) < CLOCK_NOTICED:
        return Check(name="clocks", state="ok", found=found)
    state: State = "failed" if abs(difference) >= CLOCK_WRONG else "warning"
    return Check(
        name="clocks", state=state, found=found, remedy="run an NTP client on both (chrony, systemd-timesyncd)"
    )


async def _log(connection: Connection, settings: Settings) -> Check:
    row = (await (await connection.execute(LOG)).fetchall())[0]
    unfit = await _unfit(connection, settings)
    if unfit is not None:
        found, _, remedy = unfit.partition(": ")
        return Check(name="log", state="failed", found=found, remedy=remedy)
    if row["partitions"] not in {None, settings.topic_partitions}:
        found = f"it was begun with {row['partitions']} partitions, TOPIC_PARTITIONS is {settings.topic_partitions}"
        return Check(name="log", state="failed", found=found, remedy=f"set TOPIC_PARTITIONS to {row['partitions']}")
    if row["ahead"]:
        found = f"its last event, at position {row['position']}, is from a time that is still to come"
        remedy = "set the database server's clock: events keep that time until it has come"
        return Check(name="log", state="warning", found=found, remedy=remedy)
    if (changing := await _changing(connection, settings)) is not None:
        return changing
    if row["parked"]:
        found = f"position {row['position']}; the relay holds back {row['parked']} users"
        return Check(name="log", state="warning", found=found, remedy="see `muster parked list`")
    return Check(name="log", state="ok", found=f"position {row['position']}")


async def _proofs(connection: Connection) -> Check:
    row = (await (await connection.execute(SIGNED)).fetchall())[0]
    if row["origin"] is None:
        if row["late"]:
            remedy = "start a command API: its integrator begins the tree"
            return Check(name="proofs", state="warning", found="no event is in a tree yet", remedy=remedy)
        return Check(name="proofs", state="ok", found="there is nothing to sign yet")
    found = f"{row['origin']}: {row['signed']} of {row['position']} events are in a signed checkpoint"
    if row["late"]:
        remedy = "see `integrator` at /readyz of the command APIs, and docs/operate.md (The integrator)"
        return Check(name="proofs", state="warning", found=found, remedy=remedy)
    return Check(name="proofs", state="ok", found=found)


async def _unfit(connection: Connection, settings: Settings) -> str | None:
    """What to say when the log was written with other keys than are known here; bad ones are told already."""
    with suppress(BadKey):
        try:
            await check_kek(connection, open_keyring(settings).kek)
        except CannotRun as error:
            return str(error)
    with suppress(BadKey):
        return wrong_index_key((await email_index(connection))["key_id"], open_digester(settings))
    return None


async def _changing(connection: Connection, settings: Settings) -> Check | None:
    """A change of keys that was begun and is not at its end."""
    with suppress(BadKey):
        keks = open_keyring(settings).kek
        if others := await keks_in_use(connection) - {keks.id}:
            found = (
                f"there are users' keys that KEK {', '.join(sorted(others))} wrapped, and {keks.id} is the current one"
            )
            return Check(name="log", state="warning", found=found, remedy="run `muster keys rotate-kek`")
    if (following := (await email_index(connection))["next_key_id"]) is not None:
        found = f"the e-mail index is on its way to the key {following}"
        return Check(name="log", state="warning", found=found, remedy="go on with `muster keys rotate-email-index`")
    return None


async def _broker(settings: Settings) -> AsyncIterator[Check]:
    servers = settings.kafka_bootstrap_servers
    try:
        async with asyncio.timeout(BROKER_WITHIN), admin_client(settings) as admin:
            names = set(await admin.list_topics())
            wanted = [settings.events_topic, settings.snapshot_topic]
            # of what is not shown, a broker with rules tells whether it may be seen; another might make it, being asked
            asked = wanted if settings.may_be_refused else [name for name in wanted if name in names]
            described = await admin.describe_topics(asked)
    except (KafkaError, OSError, TimeoutError) as error:
        refusal = await refusal_of(settings, error) or Refusal(
            problem=" ".join(str(error).split()) or type(error).__name__,
            remedy="start Kafka, and see that KAFKA_BOOTSTRAP_SERVERS names it as this machine can reach it",
        )
        yield Check(name="broker", state="failed", found=f"{servers}: {refusal.problem}", remedy=refusal.remedy)
        return
    login = f" as {settings.kafka_sasl_username}" if settings.has_sasl else ""
    yield Check(name="broker", state="ok", found=f"{servers}, {settings.kafka_security_protocol}{login}")
    for name in wanted:
        found = next((topic for topic in described if topic["topic"] == name), None)
        yield _topic(name, found, settings)


def _topic(name: str, found: dict[str, Any] | None, settings: Settings) -> Check:
    if found is not None and found["error_code"] == TopicAuthorizationFailedError.errno:
        return Check(name=name, state="failed", found="the broker refuses any right to it", remedy=f"see {RIGHTS}")
    if found is None or found["error_code"] == UnknownTopicOrPartitionError.errno:
        return Check(name=name, state="warning", found="is not there", remedy="a relay makes it: start a command API")
    if found["error_code"] != NO_ERROR:
        return Check(name=name, state="failed", found=f"error {found['error_code']}", remedy="see the broker's log")
    partitions = found["partitions"]
    if len(partitions) != settings.topic_partitions:
        told = f"has {len(partitions)} partitions, TOPIC_PARTITIONS is {settings.topic_partitions}"
        return Check(name=name, state="failed", found=told, remedy=f"set TOPIC_PARTITIONS to {len(partitions)}")
    replicas = min(len(partition["replicas"]) for partition in partitions)
    told = f"{len(partitions)} partitions, {replicas} copies of each"
    if replicas == 1 and settings.muster_mode == "production":
        remedy = "set TOPIC_REPLICATION to 3 before the topic is made, or add replicas with Kafka's own tools"
        return Check(name=name, state="warning", found=told, remedy=remedy)
    return Check(name=name, state="ok", found=told)


def _words(checks: list[Check]) -> Iterator[str | Text]:
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    for check in checks:
        yield Text.assemble((f"{check.state:8}", colours[check.state]), f" {check.name}: {check.found}")
        if check.remedy is not None:
            yield f"         -> {check.remedy}"
