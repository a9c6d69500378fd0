"""How every client connects to the brokers, and what a broker that lets one in or not is to be asked for."""

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from aiokafka import TopicPartition, conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from runtime.broker_settings import BrokerSettings

# seconds for hearing why a connection is refused: whoever waits has been refused already
ASK_WITHIN: Final = 3.0
# it has no types
_conn: Any = conn
RIGHTS: Final = "`muster acls` has the rights that each process needs"


class UnusableFiles(KafkaError):
    """The certificates or the key that the settings name are not what they were at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a broker does not do what it is asked, and what to do about it: no address, no name, no secret."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


def connection_arguments(settings: BrokerSettings) -> dict[str, Any]:
    """What each of aiokafka's clients takes to connect, a password in the clear among it. Raises UnusableFiles.

    The files of TLS are read anew, so that a client made after they were renewed has the new ones.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.has_tls:
        try:
            arguments["ssl_context"] = settings.tls_context()
        except ValueError as error:
            raise UnusableFiles(str(error)) from None
    if settings.has_sasl and settings.kafka_sasl_password is not None:
        arguments |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return arguments


async def refusal_of(settings: BrokerSettings, error: BaseException) -> Refusal | None:
    """What an error of aiokafka's means to an operator, when more than time can mend it; None for all others.

    Of a failed login or handshake its clients tell only that there is no connection: so one is made here, to hear why.
    """
    match error:
        case UnusableFiles():
            problem, _, remedy = str(error.args[0]).partition(": ")
            return Refusal(problem=problem, remedy=remedy)
        case TopicAuthorizationFailedError():
            return Refusal(problem=f"the broker refuses a right to topic {_named(error)}", remedy=RIGHTS)
        case GroupAuthorizationFailedError():
            return Refusal(problem=f"the broker refuses a right to consumer group {_named(error)}", remedy=RIGHTS)
        case ClusterAuthorizationFailedError():
            return Refusal(problem="the broker refuses the right to write to any topic", remedy=RIGHTS)
        case KafkaError() | OSError() | TimeoutError():
            return await _heard(settings)
        case _:
            return None


async def trouble(settings: BrokerSettings, error: BaseException) -> str:
    """One line about a broker that a command could not use."""
    refusal = await refusal_of(settings, error)
    if refusal is not None:
        return f"at {settings.kafka_bootstrap_servers} {refusal}"
    return f"the broker at {settings.kafka_bootstrap_servers}: {' '.join(str(error).split()) or type(error).__name__}"


async def _heard(settings: BrokerSettings) -> Refusal | None:
    """Ask each broker in turn to be let in."""
    try:
        arguments = connection_arguments(settings)
    except UnusableFiles as error:
        return await refusal_of(settings, error)
    with suppress(TimeoutError):
        async with asyncio.timeout(ASK_WITHIN):
            for host, port, _ in cast(
                "Iterable[tuple[str, int, Any]]", _conn.collect_hosts(arguments.pop("bootstrap_servers"))
            ):
                try:
                    connection = await _conn.create_conn(
                        host, port, request_timeout_ms=int(ASK_WITHIN * 1000), **arguments
                    )
                except (KafkaError, OSError) as error:
                    if (refusal := _meant(error, settings)) is not None:
                        return refusal
                    continue
                try:
                    await connection.send(MetadataRequest([]))
                except (KafkaError, OSError) as error:
                    return _meant(error, settings)
                finally:
                    connection.close()
    return None


def _meant(error: Exception, settings: BrokerSettings) -> Refusal | None:
    protocol = settings.kafka_security_protocol
    match error:
        case ssl.SSLError():
            return _meant_by_tls(error, protocol)
        case SaslAuthenticationFailed() | AuthenticationFailedError():
            return Refusal(
                problem="the broker refuses the user name or the password",
                remedy="set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD to what it has for KAFKA_SASL_MECHANISM"
                f" {settings.kafka_sasl_mechanism}",
            )
        case UnsupportedSaslMechanismError():
            return Refusal(
                problem=f"the broker does not offer {settings.kafka_sasl_mechanism}",
                remedy="set KAFKA_SASL_MECHANISM to one that it does",
            )
        case IllegalSaslStateError():
            return _another_protocol("the broker asks for no login on this port", protocol)
        case KafkaConnectionError() | ConnectionResetError():
            refusal = _another_protocol("the broker ends the connection without an answer", protocol)
            if settings.has_tls and settings.kafka_certificate_file is None:
                asks = (
                    f"{refusal.remedy}, and whether it asks for a certificate (KAFKA_CERTIFICATE_FILE, KAFKA_KEY_FILE)"
                )
                return replace(refusal, remedy=asks)
            return refusal
        case _:
            # time alone may mend it: nobody listens, or the name is not known
            return None


def _meant_by_tls(error: ssl.SSLError, protocol: str) -> Refusal:
    match error:
        case ssl.SSLCertVerificationError() if "mismatch" in error.verify_message:
            return Refusal(
                problem="the broker's certificate is for another host",
                remedy="name the brokers in KAFKA_BOOTSTRAP_SERVERS as their certificates do",
            )
        case ssl.SSLCertVerificationError():
            return Refusal(
                problem=f"the broker's certificate is not trusted ({error.verify_message})",
                remedy="set KAFKA_CA_FILE to the certificate of the authority that issued it",
            )
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            return _another_protocol("the broker speaks no TLS on this port", protocol)
        case _:
            return Refusal(
                problem=f"the broker ends the TLS handshake ({error.reason})",
                remedy="see whether it asks for a certificate, and set KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE",
            )


def _another_protocol(problem: str, protocol: str) -> Refusal:
    remedy = f"see whether KAFKA_SECURITY_PROTOCOL, which is {protocol}, is what its port speaks"
    return Refusal(problem=problem, remedy=remedy)


def _named(error: KafkaError) -> str:
    """The topics or the group that an error is about, in whatever shape aiokafka has them."""
    found: set[str] = set()
    for argument in error.args:
        several = cast("Iterable[Any]", argument) if isinstance(argument, (set, list, frozenset)) else [argument]
        found |= {one.topic if isinstance(one, TopicPartition) else str(one) for one in several}
    return ", ".join(sorted(found))
