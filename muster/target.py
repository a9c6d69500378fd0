"""What a command works on: the deployment that the environment describes, else the running development stack."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from muster.environment import process_environment, secret_from
from muster.home import Home, home_at
from muster.running import RunningStack, running_stack
from runtime.broker_settings import BrokerSettings
from runtime.database import Connection, Session
from runtime.settings import Settings, broker_settings_from_environment, settings_from_environment

T = TypeVar("T")

# a person waits for it
DATABASE_TIMEOUT = 10.0


def target_home() -> Home:
    return home_at(os.environ.get("MUSTER_HOME"))


def target_stack() -> RunningStack:
    """Raises CannotRun when none runs."""
    return running_stack(target_home().run_file)


def target_settings(process: str = "command_api") -> Settings:
    """That process's settings. Raises BadSettings, and CannotRun when neither is there."""
    if secret_from(os.environ, "DATABASE_URL") is not None:
        return settings_from_environment()
    stack = {name.lower(): value for name, value in _of_stack(process).items()}
    return settings_from_environment(**BrokerSettings.unsecured(), **stack)


def target_broker() -> BrokerSettings:
    """The brokers that the environment names. Raises BadSettings, and CannotRun when neither is there."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return broker_settings_from_environment()
    return broker_of(target_stack())


def broker_of(stack: RunningStack) -> BrokerSettings:
    """A development stack's own broker, whatever another's connection the environment describes."""
    return broker_settings_from_environment(
        muster_mode="development",
        kafka_bootstrap_servers=stack.kafka_bootstrap_servers,
        **BrokerSettings.unsecured(),
    )


async def on_database(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Raises Unavailable, OutcomeUnknown and psycopg's errors about what was sent."""
    session = Session(
        settings.database_url.get_secret_value(), application="muster command line", timeout=DATABASE_TIMEOUT
    )
    try:
        return await session.use(work)
    finally:
        await session.close()


def _of_stack(process: str) -> Mapping[str, str]:
    stack = target_stack()
    environment = process_environment(
        target_home(),
        process,
        database_url=stack.database_url,
        kafka_bootstrap_servers=stack.kafka_bootstrap_servers,
    )
    return {"MUSTER_MODE": "development", "SCHEMAS_URL": f"{stack.query_url}/schemas", **environment}
