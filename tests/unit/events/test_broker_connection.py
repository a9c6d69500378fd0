import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
)

from events.broker_connection import UnusableFiles, connection_arguments, refusal_of, trouble
from runtime.broker_settings import BrokerSettings
from tests.certificates import Authority

PASSWORD = "Scr4m-of-the-tests"


def settings(**values: Any) -> BrokerSettings:  # noqa: ANN401 - fields of any type
    told: dict[str, Any] = {"muster_mode": "test", "kafka_bootstrap_servers": "127.0.0.1:1", **values}
    return BrokerSettings(**told)


def with_login(**values: Any) -> BrokerSettings:  # noqa: ANN401 - likewise
    login = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "ada", "kafka_sasl_password": PASSWORD}
    return settings(**login | values)


def test_without_tls_or_login_only_the_addresses_are_told() -> None:
    assert connection_arguments(settings()) == {
        "bootstrap_servers": "127.0.0.1:1",
        "security_protocol": "PLAINTEXT",
    }


def test_a_login_is_told_with_its_mechanism() -> None:
    told = connection_arguments(with_login(kafka_sasl_mechanism="SCRAM-SHA-256"))
    assert told.pop("ssl_context")
    assert told == {
        "bootstrap_servers": "127.0.0.1:1",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "ada",
        "sasl_plain_password": PASSWORD,
    }


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_hosts_are_verified_always(protocol: str, tmp_path: Path) -> None:
    login = {} if protocol == "SSL" else {"kafka_sasl_username": "ada", "kafka_sasl_password": PASSWORD}
    authority = Authority(tmp_path)
    for values in ({}, {"kafka_ca_file": authority.file}):
        context = connection_arguments(settings(kafka_security_protocol=protocol, **login, **values))["ssl_context"]
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_only_the_authorities_of_the_file_are_trusted(tmp_path: Path) -> None:
    ours = settings(kafka_security_protocol="SSL", kafka_ca_file=Authority(tmp_path).file)
    assert len(connection_arguments(ours)["ssl_context"].get_ca_certs()) == 1


async def test_files_that_are_gone_since_the_start_are_told_like_any_refusal(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = settings(kafka_security_protocol="SSL", kafka_ca_file=authority.file)
    authority.file.unlink()
    with pytest.raises(UnusableFiles) as refused:
        connection_arguments(ours)
    told = str(await refusal_of(ours, refused.value))
    assert told == f"KAFKA_CA_FILE: cannot read {authority.file}: No such file or directory"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (TopicAuthorizationFailedError("users.events.v1"), "topic users.events.v1"),
        (TopicAuthorizationFailedError(TopicPartition("users.events.v1", 3)), "topic users.events.v1"),
        (TopicAuthorizationFailedError({"b", "a"}), "topic a, b"),
        (GroupAuthorizationFailedError("muster-projector"), "consumer group muster-projector"),
    ],
)
async def test_a_right_that_is_missing_is_named(error: Exception, problem: str) -> None:
    refusal = await refusal_of(with_login(), error)
    assert refusal is not None
    assert refusal.problem == f"the broker refuses a right to {problem}"
    assert "muster acls" in refusal.remedy


async def test_a_producer_that_may_write_nowhere_is_told_so() -> None:
    refusal = await refusal_of(with_login(), ClusterAuthorizationFailedError())
    assert refusal is not None
    assert refusal.problem == "the broker refuses the right to write to any topic"


async def test_a_broker_that_is_away_is_no_refusal() -> None:
    error = KafkaConnectionError("Unable to bootstrap")
    assert await refusal_of(with_login(), error) is None
    assert await trouble(settings(), error) == f"the broker at 127.0.0.1:1: {error}"


async def test_what_is_no_error_of_a_broker_is_not_asked_about() -> None:
    assert await refusal_of(with_login(), ValueError("x")) is None


async def test_a_port_that_speaks_no_tls_is_told_from_one_that_is_away() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        told = await trouble(with_login(kafka_bootstrap_servers=f"127.0.0.1:{port}"), KafkaConnectionError())
    assert told == (
        f"at 127.0.0.1:{port} the broker speaks no TLS on this port: see whether KAFKA_SECURITY_PROTOCOL, which is"
        " SASL_SSL, is what its port speaks"
    )
    assert PASSWORD not in told
