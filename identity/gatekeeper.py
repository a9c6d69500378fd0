import time
from collections import OrderedDict
from typing import Final

from identity.access_tokens import AccessTokens, Caller, InvalidToken
from identity.trust import Trust

REMEMBERED: Final = 50_000


class Gatekeeper:
    """Tells callers from their access tokens.

    A token that was verified is remembered until it expires or is revoked: admitting it again costs a few look-ups in
    memory. What was revoked is never older than `identity.trust.FRESH_FOR` when it is asked.
    """

    def __init__(self, tokens: AccessTokens, trust: Trust) -> None:
        self._tokens = tokens
        self._trust = trust
        self._verified: OrderedDict[str, Caller] = OrderedDict()

    async def admit(self, token: str) -> Caller:
        """Raises InvalidToken, and Unavailable when nobody can tell what was revoked."""
        if not self._trust.fresh:
            await self._trust.look()
        caller = self._verified.get(token)
        if caller is None:
            caller = self._tokens.verify(token, self._trust.verifiers)
            if caller.reflects > self._trust.number:
                # another instance has seen revocations that this one has not
                await self._trust.look()
                if caller.reflects > self._trust.number:
                    raise InvalidToken("issued by another history of this database")
            self._remember(token, caller)
        if self._lapsed(caller):
            self._verified.pop(token, None)
            raise InvalidToken("expired or revoked")
        return caller

    async def check(self, caller: Caller) -> None:
        """Raises as `admit` does when a caller who was admitted would not be any more."""
        if not self._trust.fresh:
            await self._trust.look()
        if self._lapsed(caller):
            raise InvalidToken("expired or revoked")

    def _lapsed(self, caller: Caller) -> bool:
        return (
            caller.expires_at <= time.time()
            or caller.kid not in self._trust.keys
            # remembered from before this database was put back: what was revoked since has lower numbers
            or caller.reflects > self._trust.number
            or self._trust.voids(caller.subject, caller.session, caller.reflects)
        )

    def _remember(self, token: str, caller: Caller) -> None:
        self._verified[token] = caller
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
