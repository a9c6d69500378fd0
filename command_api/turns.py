import asyncio
from collections import deque

from events.user import UserId
from runtime.failures import Unavailable


class Turns:
    """Lets the commands of one user go one by one in this process, in the order in which they came.

    A lock for each user, of which most are free: taking one costs a look-up.
    """

    def __init__(self) -> None:
        self._waiting: dict[UserId, deque[asyncio.Future[None]]] = {}

    async def take(self, user_id: UserId, *, timeout: float) -> None:
        """Raises Unavailable when those before take longer than `timeout` seconds."""
        waiting = self._waiting.get(user_id)
        if waiting is None:
            self._waiting[user_id] = deque()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(timeout):
                await turn
        except TimeoutError:
            self._forgo(user_id, turn)
            raise Unavailable("earlier changes of this user took too long") from None
        except asyncio.CancelledError:
            self._forgo(user_id, turn)
            raise

    def release(self, user_id: UserId) -> None:
        """Whose turn it is calls this once."""
        waiting = self._waiting[user_id]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[user_id]

    def _forgo(self, user_id: UserId, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            # it came at the same moment
            self.release(user_id)
