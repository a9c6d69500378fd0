"""Work that one process of several does: the one that holds an advisory lock of the database."""

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import psycopg
from aiokafka.errors import KafkaError
from prometheus_client import Gauge
from psycopg.rows import dict_row

from events.broker_connection import refusal_of
from runtime.database import Connection, Row
from runtime.logs import logger
from runtime.pacing import LONGEST, Backoff, wait_at_most
from runtime.settings import Settings

# seconds between two looks whether the lock is free
STAND_BY: Final = 0.25
SESSION: Final = (
    "SET jit = off",
    "SET statement_timeout = '20s'",
    # what a crash takes away of where the work stands is found again: in the topics, and in the log
    "SET synchronous_commit = off",
    # a leader whose machine vanished must not hold the lock for the hours that a server waits by default
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
)

State = Literal["starting", "standby", "leading", "halted", "retrying", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What the work is called, and the advisory lock that goes with it.

    `grave` is what no machine may settle: the leader then waits for an operator. `passing` is what is tried again.
    """

    name: str
    lock: int
    grave: tuple[type[Exception], ...]
    passing: tuple[type[Exception], ...] = ()
    leading: Gauge
    halted: Gauge


class Leader(ABC):
    """Stands for election until it leads, and does its work then. Runs until `stop`."""

    office: ClassVar[Office]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._log = logger(type(self).__module__)
        self.state: State = "starting"
        self.problem: str | None = None

    def wake(self) -> None:
        """Tell it that this process has just committed something."""
        self._wake.set()

    def stop(self) -> None:
        """Ask it to finish what it is at, give up leadership and return."""
        self._stopping.set()
        self._wake.set()

    @abstractmethod
    async def _lead(self, connection: Connection) -> None:
        """Do the work until `_stopping`. The session that holds the lock is lent: losing it ends both."""

    async def run(self) -> None:
        office, backoff = self.office, Backoff()
        while not self._stopping.is_set():
            backoff.attempt()
            try:
                await self._stand_for_election()
                continue
            except office.grave as error:
                # say it, keep looking whether an operator has settled it
                self._set("halted", str(error))
                self._log.error(f"{office.name} halted", reason=str(error))
            except (*office.passing, KafkaError, psycopg.Error, OSError, TimeoutError) as error:
                # the log tells the rest: an address or a name is nothing for whoever asks about readiness
                self._set("retrying", type(error).__name__)
                refusal = await refusal_of(self._settings, error)
                if refusal is not None:
                    self._set("retrying", str(refusal))
                reason = str(refusal or error)
                self._log.warning(f"{office.name} interrupted", reason=f"{type(error).__name__}: {reason}")
            except Exception as error:  # noqa: BLE001 - a fault of this code: it is tried again, and seen
                self._set("retrying", type(error).__name__)
                self._log.exception(f"{office.name} failed")
            finally:
                office.leading.set(0)
            await wait_at_most(self._stopping, LONGEST if self.state == "halted" else backoff.pause())
        self._set("stopped")

    def _leads(self, **told: object) -> None:
        """Say that the work is taken up."""
        self.office.leading.set(1)
        self._set("leading")
        self._log.info(f"{self.office.name} leads", **told)

    async def _stand_for_election(self) -> None:
        connection = await psycopg.AsyncConnection[Row].connect(
            self._settings.database_url.get_secret_value(),
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=5,
            application_name=f"muster {self.office.name}",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=2,
        )
        async with connection:
            for setting in SESSION:
                await connection.execute(setting)
            while not self._stopping.is_set():
                cursor = await connection.execute("SELECT pg_try_advisory_lock(%s) AS won", (self.office.lock,))
                row = await cursor.fetchone()
                if row is not None and row["won"]:
                    await self._lead(connection)
                    return
                self._set("standby")
                await wait_at_most(self._stopping, STAND_BY)

    def _set(self, state: State, problem: str | None = None) -> None:
        self.state, self.problem = state, problem
        self.office.halted.set(state == "halted")


async def run_alone(leaders: Sequence[Leader]) -> None:
    """Run them in a process of their own until SIGTERM or SIGINT."""

    def stop() -> None:
        for leader in leaders:
            leader.stop()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    await asyncio.gather(*(leader.run() for leader in leaders))
