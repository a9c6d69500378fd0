import asyncio
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runtime.database import Session
from runtime.failures import Unavailable

READ_ONLY: Final = "-c default_transaction_read_only=on"


def list_session(url: str, *, options: str, timeout: float) -> Session:
    """A connection that reads lists; `options` are PostgreSQL's, as libpq takes them."""
    told = f"{conninfo_to_dict(url).get('options') or ''} {READ_ONLY} {options}"
    return Session(make_conninfo(url, options=told), application="muster query lists", timeout=timeout, reads=True)


class Lanes:
    """Connections that read lists, each lent to one at a time, in the order in which they are asked for."""

    def __init__(self, url: str, *, options: str, number: int, timeout: float) -> None:
        self._timeout = timeout
        self._sessions = [list_session(url, options=options, timeout=timeout) for _ in range(number)]
        # the one that was used last comes first: its server process has everything at hand
        self._free = [*self._sessions]
        # in the order in which they came: from a queue, who comes just now takes what was put back for who has waited
        self._turns = asyncio.Semaphore(number)

    async def take(self) -> Session:
        """Raises Unavailable when none is free in time."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable(f"earlier lists took longer than {self._timeout:g} s") from None
        return self._free.pop()

    def put_back(self, session: Session) -> None:
        self._free.append(session)
        self._turns.release()

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()
