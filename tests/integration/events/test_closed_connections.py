import asyncio
import gc
import ssl
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.conn import AIOKafkaProtocol
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from events.closed_connections import tell_closed_connections

tell_closed_connections()


@pytest.mark.broker
def test_a_write_to_a_connection_that_was_closed_is_a_broken_connection(bootstrap_servers: str) -> None:
    async def write() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
        await producer.start()
        try:
            client: Any = producer.client
            connection: Any = await client._get_conn(client.get_random_node())  # noqa: SLF001 - nothing public has it
            # as when the broker was killed: the transport knows, and who reads from it has not had its turn yet
            _, closed = await asyncio.open_connection(connection.host, connection.port)
            closed.transport.abort()
            await closed.wait_closed()
            own, connection._writer = connection._writer, closed  # noqa: SLF001
            own.close()
            with pytest.raises(KafkaConnectionError):
                await connection.send(MetadataRequest([]))
            # and the client finds another
            await client.force_metadata_update()
        finally:
            await producer.stop()

    uvloop.run(write())


async def test_why_a_connection_ended_is_not_reported_by_the_event_loop_too() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    protocol: Any = AIOKafkaProtocol(loop.create_future(), asyncio.StreamReader(loop=loop), loop=loop)
    protocol.connection_lost(ssl.SSLError("bad certificate"))
    # collected together, as a connection's parts are, in whatever order: the future before its protocol
    closed, protocol._closed = protocol._closed, loop.create_future()  # noqa: SLF001 - nothing public has it
    assert isinstance(closed, asyncio.Future)
    del closed
    gc.collect()
    assert reported == []
