"""`muster doctor`: each failure is found, and told with what to do about it."""

import base64
import secrets
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.databases import MakeSettings, database_named
from tests.integration.muster.conftest import Muster, Told

Owner = psycopg.Connection[dict[str, Any]]
Checks = dict[str, dict[str, Any]]


@pytest.fixture
def servers(make_settings: MakeSettings) -> str:
    return make_settings(broker=True).kafka_bootstrap_servers


def checks(told: Told) -> Checks:
    return {check["name"]: check for check in told.result["checks"]}


async def test_a_deployment_in_order_is_0(muster: Muster, servers: str) -> None:
    told = await muster("doctor", "--json", KAFKA_BOOTSTRAP_SERVERS=servers)
    assert told.status == 0, told.stdout + told.stderr
    found = checks(told)
    assert {name for name, check in found.items() if check["state"] == "failed"} == set()
    parts = ("settings", "EMAIL_INDEX_KEY", "database", "clocks", "schema", "durability", "log", "proofs", "broker")
    for name in parts:
        assert found[name]["state"] == "ok", found[name]
    # no relay has made them yet
    topics = [check for name, check in found.items() if name.startswith("users.")]
    assert [(check["state"], "relay" in check["remedy"]) for check in topics] == [("warning", True)] * 2


async def test_people_get_lines(muster: Muster, servers: str) -> None:
    told = await muster("doctor", KAFKA_BOOTSTRAP_SERVERS=servers)
    assert told.status == 0, told.stderr
    assert "ok       database: PostgreSQL" in told.stdout
    assert "-> a relay makes it" in told.stdout


@pytest.mark.parametrize(
    ("variables", "name", "remedy"),
    [
        ({"DATABASE_URL": "postgresql://muster_command@127.0.0.1:1/none"}, "database", "start PostgreSQL"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "broker", "start Kafka"),
        ({"KEK": None, "KEK_FILE": None}, "KEK", "openssl rand"),
        ({"EMAIL_INDEX_KEY": "c2hvcnQ=", "EMAIL_INDEX_KEY_FILE": None}, "EMAIL_INDEX_KEY", "32 random bytes"),
        ({"KEK": base64.b64encode(secrets.token_bytes(32)).decode(), "KEK_FILE": None}, "log", "set KEK or KEK_FILE"),
        ({"LOG_LEVEL": "loud"}, "settings", ".env.example"),
        ({"DATABASE_URL": None}, "settings", "make run"),
    ],
)
async def test_each_failure_is_1_and_says_how_it_is_mended(
    muster: Muster, servers: str, variables: dict[str, str | None], name: str, remedy: str
) -> None:
    told = await muster("doctor", "--json", **{"KAFKA_BOOTSTRAP_SERVERS": servers, **variables})
    assert told.status == 1, told.stdout + told.stderr
    assert told.stderr.strip().splitlines()[-1] == f"muster: to be mended: {name}"
    check = checks(told)[name]
    assert (check["state"], remedy in check["remedy"]) == ("failed", True), check


async def test_another_number_of_partitions_is_found(muster: Muster, servers: str, owner: Owner) -> None:
    owner.execute("INSERT INTO log.partitioning (partitions) VALUES (7)")
    told = await muster("doctor", "--json", KAFKA_BOOTSTRAP_SERVERS=servers)
    assert (told.status, checks(told)["log"]["remedy"]) == (1, "set TOPIC_PARTITIONS to 7")


async def test_a_database_without_the_schema_is_found(muster: Muster, servers: str, postgres_url: str) -> None:
    name = sql.Identifier(f"muster_test_{secrets.token_hex(6)}")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            url = database_named(postgres_url, name.as_string().strip('"'))
            told = await muster("doctor", "--json", DATABASE_URL=url, KAFKA_BOOTSTRAP_SERVERS=servers)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    check = checks(told)["schema"]
    assert (told.status, check["state"]) == (1, "failed")
    assert check["remedy"] == "run `muster migrate` as the database's owner"
