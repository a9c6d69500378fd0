import asyncio
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaProducer
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
