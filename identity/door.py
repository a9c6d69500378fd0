import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import Request

from events.keks import KeyWrapper
from events.keyring import Digester
from identity.access_tokens import AccessTokens, Caller
from identity.cookies import SAFE, check_csrf, check_origin
from identity.gatekeeper import Gatekeeper
from identity.signing_keys import insert_first, new_key
from identity.trust import Trust
from runtime.database import Session
from runtime.settings import Settings


class Door:
    """What stands before an app's routes, as `app.state.door`.

    With a `kek` it issues tokens too, and makes the first signing key of a deployment. Without a `digester` it admits
    no change that a cookie vouches for.
    """

    def __init__(self, settings: Settings, *, kek: KeyWrapper | None = None, digester: Digester | None = None) -> None:
        self._kek = kek
        self._digester = digester
        self._database = Session(
            settings.database_url.get_secret_value(),
            application="muster identity trust",
            timeout=settings.read_timeout,
            reads=True,
        )
        self.origins = settings.origins
        self.tokens = AccessTokens(settings)
        self.trust = Trust(self._database, keep=settings.access_token_ttl + 60, kek=kek)
        self.gatekeeper = Gatekeeper(self.tokens, self.trust)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        following = asyncio.create_task(self.trust.follow(keyless=self._make_first_key if self._kek else None))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})
            await self.trust.close()

    def check_cookie(self, request: Request, caller: Caller) -> None:
        """Refuse a change that another site's page asks for on the strength of a cookie; raises a 403 problem."""
        if request.method not in SAFE:
            check_origin(request, self.origins)
            check_csrf(request, self._digester, caller.session)

    async def _make_first_key(self) -> None:
        if self._kek is not None:
            key = new_key(self._kek)
            await self._database.use(lambda connection: insert_first(connection, key))
