"""Where the tests' Postgres and Kafka come from: named by settings, else Docker, else embedded. Never mocks."""

import functools
import gc
import os
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from muster.embedded.broker import EmbeddedBroker
from muster.embedded.ports import free_port
from muster.embedded.postgres import EmbeddedPostgres

POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = "apache/kafka:4.1.2"


@functools.cache
def docker_answers() -> bool:
    with warnings.catch_warnings():
        # a client that found no engine leaves its socket to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env(timeout=5)
            answers = bool(client.ping())
            client.close()
        except DockerException:
            answers = False
        gc.collect()
    return answers


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The owner's URL of a server where tests may make databases."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    elif docker_answers():
        with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
            yield container.get_connection_url()
    else:
        with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), throwaway=True) as server:
            yield server.url()


@pytest.fixture(scope="session")
def bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
    elif docker_answers():
        with _kafka_container() as (_, servers):
            yield servers
    else:
        with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
            yield broker.bootstrap_servers


class _kafka_container:  # noqa: N801 - used as a function
    """The official image: one node that is broker and controller, reached through a port that is fixed beforehand."""

    def __init__(self) -> None:
        self.port = free_port()
        environment: dict[str, Any] = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{self.port}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        }
        self.container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, self.port)
        for name, value in environment.items():
            self.container.with_env(name, value)
        self.container.waiting_for(LogMessageWaitStrategy("Kafka Server started"))

    def __enter__(self) -> tuple[DockerContainer, str]:
        return self.container.start(), f"127.0.0.1:{self.port}"

    def __exit__(self, *_: object) -> None:
        self.container.stop()
