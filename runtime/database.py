import asyncio
import select
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, LiteralString, TypeVar

import orjson
import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger

Row = dict[str, Any]
T = TypeVar("T")
Connection = psycopg.AsyncConnection[Row]

log = logger(__name__)


def sqlalchemy_url(database_url: str) -> str:
    """Name psycopg 3 as the driver: SQLAlchemy would take psycopg2 for a plain postgresql URL."""
    scheme, _, rest = database_url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in {"postgresql", "postgres"} else database_url


class Session:
    """One database connection that mends itself: it connects on first use and again after it broke.

    Calls are serialised. Each is bounded by `timeout` seconds here and by a statement_timeout of four fifths of it in
    the server, so that a slow statement ends as a clean refusal before the bound cuts it off.
    """

    def __init__(self, database_url: str, *, application: str, timeout: float, reads: bool = False) -> None:
        self._reads = reads
        self._url = database_url
        self._application = application
        self._timeout = timeout
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._abandoned: set[asyncio.Task[Any]] = set()

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def fetch(
        self,
        query: LiteralString,
        parameters: Sequence[object] | Mapping[str, object] = (),
        *,
        timeout: float | None = None,
    ) -> list[Row]:
        """Run one statement in a transaction of its own.

        Raises Unavailable when it surely had no effect, OutcomeUnknown when the answer was lost after it was sent.
        """

        async def run(connection: Connection) -> list[Row]:
            cursor = await connection.execute(query, parameters, prepare=True)
            return await cursor.fetchall() if cursor.description else []

        return await self.use(run, timeout=timeout)

    async def use(self, work: Callable[[Connection], Awaitable[T]], *, timeout: float | None = None) -> T:
        """Lend the connection (autocommit) to `work`; raises as `fetch` does.

        Errors of the server that are about the data (integrity, permission, bad or too large values) pass through as
        psycopg raises them.
        """
        bound = timeout or self._timeout
        try:
            async with asyncio.timeout(bound):
                await self._turn.acquire()
        except TimeoutError:
            # behind calls that the database does not answer, each of which takes its whole bound
            raise Unavailable(f"earlier calls took longer than {bound:g} s") from None
        try:
            return await self._run(work, bound)
        finally:
            self._turn.release()

    async def close(self) -> None:
        async with self._turn:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=1)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], bound: float) -> T:
        connection = await self._connect(bound)
        task = asyncio.ensure_future(work(connection))
        try:
            done, _ = await asyncio.wait({task}, timeout=bound)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            message = f"the database did not answer within {bound:g} s"
            raise Unavailable(message) if self._reads else OutcomeUnknown(message)
        try:
            return task.result()
        except errors.ProgramLimitExceeded:
            # psycopg counts it among the failures of operation; it is about the data: a value is too large for an index
            raise
        except psycopg.OperationalError as error:
            if error.sqlstate is None or connection.broken:
                self._connection = None
                await connection.close()
            if error.sqlstate is None and not self._reads:
                raise OutcomeUnknown("the connection to the database broke") from error
            # the server itself reported the failure, so it rolled back
            raise Unavailable(f"the database refused: {error.diag.message_primary or error}") from error

    async def _connect(self, bound: float) -> Connection:
        if (held := self._connection) is not None:
            if not held.closed and not _has_news(held):
                return held
            self._connection = None
            await held.close()
        try:
            async with asyncio.timeout(bound):
                connection = await psycopg.AsyncConnection[Row].connect(
                    self._url,
                    autocommit=True,
                    row_factory=dict_row,
                    prepare_threshold=0,
                    connect_timeout=max(2, int(bound)),
                    application_name=self._application,
                    # a peer that vanished without a word is noticed within the bound
                    keepalives_idle=5,
                    keepalives_interval=2,
                    keepalives_count=2,
                )
                try:
                    set_json_loads(orjson.loads, connection)
                    # compiling a statement takes longer than any of ours runs
                    await connection.execute("SET jit = off")
                    await connection.execute(
                        sql.SQL("SET statement_timeout = {}").format(sql.Literal(int(bound * 800)))
                    )
                except BaseException:
                    # cut off half-way: nobody else knows of it
                    await connection.close()
                    raise
        except TimeoutError:
            raise Unavailable("the database did not accept a connection in time") from None
        except psycopg.OperationalError as error:
            raise Unavailable(f"no connection to the database: {error}") from error
        self._connection = connection
        return connection

    def _abandon(self, task: "asyncio.Future[Any]") -> None:
        """Leave a call that overran to end by itself, on a connection that nobody uses again."""
        connection, self._connection = self._connection, None

        async def bury() -> None:
            task.cancel()
            await asyncio.wait({task}, timeout=self._timeout)
            if not task.cancelled() and task.done() and (error := task.exception()) is not None:
                log.warning("abandoned statement ended", error=str(error))
            if connection is not None:
                await connection.close()

        burial = asyncio.create_task(bury())
        self._abandoned.add(burial)
        burial.add_done_callback(self._abandoned.discard)


def _has_news(connection: Connection) -> bool:
    """Whether the server said something on a connection at rest: that it ends, if anything.

    Looking before sending makes a restart of the server cost a reconnection, not an outcome that nobody knows.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
