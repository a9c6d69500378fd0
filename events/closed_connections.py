"""aiokafka, when the broker has closed a connection.

asyncio's transports take such a write, and the reader tells of the end. uvloop raises RuntimeError, of which aiokafka
knows nothing (its issue 1038): the task that looks for brokers dies of it, and the client waits for ever for one that
has come back long since.

And asyncio keeps why a connection ended for whoever waits for its end, which aiokafka does not: once in many times the
reason (a refused certificate, say) is reported as an exception that nobody has retrieved, with a traceback.
"""

from collections.abc import Awaitable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol, CloseReason
from aiokafka.errors import KafkaConnectionError

_connection: Any = AIOKafkaConnection
_send = _connection.send
_protocol: Any = AIOKafkaProtocol
_lose = _protocol.connection_lost


def _send_or_tell(connection: Any, request: Any, expect_response: bool = True) -> Awaitable[Any]:  # noqa: ANN401, FBT001, FBT002 - as aiokafka has it
    try:
        return _send(connection, request, expect_response)
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        broken = f"Connection at {connection.host}:{connection.port} broken: {error}"
        raise KafkaConnectionError(broken) from error


def _lose_and_know(protocol: Any, reason: Exception | None) -> None:  # noqa: ANN401 - as above
    _lose(protocol, reason)
    # the reader tells it: StreamReaderProtocol's own finaliser does this too, if it comes before the future's
    closed = protocol._closed  # noqa: SLF001 - there is no other way to it
    if closed.done() and not closed.cancelled():
        closed.exception()


def tell_closed_connections() -> None:
    """Make a write to a closed connection what aiokafka expects of it, on any event loop: KafkaConnectionError.

    And report the end of a connection once, through who uses it.
    """
    _connection.send = _send_or_tell
    _protocol.connection_lost = _lose_and_know
