"""aiokafka on uvloop, when it writes to a connection that the broker has closed.

asyncio's transports take such a write, and the reader tells of the end. uvloop raises RuntimeError, of which aiokafka
knows nothing (its issue 1038): the task that looks for brokers dies of it, and the client waits for ever for one that
has come back long since.
"""

from collections.abc import Awaitable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_connection: Any = AIOKafkaConnection
_send = _connection.send


def _send_or_tell(connection: Any, request: Any, expect_response: bool = True) -> Awaitable[Any]:  # noqa: ANN401, FBT001, FBT002 - as aiokafka has it
    try:
        return _send(connection, request, expect_response)
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        broken = f"Connection at {connection.host}:{connection.port} broken: {error}"
        raise KafkaConnectionError(broken) from error


def tell_closed_connections() -> None:
    """Make a write to a closed connection what aiokafka expects of it, on any event loop: KafkaConnectionError."""
    _connection.send = _send_or_tell
