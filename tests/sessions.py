"""Users with a session, and the tokens that carry it on."""

from dataclasses import dataclass
from uuid import UUID

import httpx

from identity.refresh_tokens import RefreshToken
from tests.calls import create

PASSWORD = "a heron on the quay"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """The tokens of one session."""

    access: str
    refresh: str

    @property
    def token(self) -> RefreshToken:
        token = RefreshToken.parse(self.refresh)
        assert token is not None
        return token

    @property
    def session(self) -> UUID:
        return self.token.session

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}


async def register(client: httpx.AsyncClient, email: str = "ada@example.com", *roles: str) -> UUID:
    """Create a user who can log in, as the administrator that the client is."""
    return UUID((await create(client, email, password=PASSWORD, roles=roles or ("user",)))["id"])


async def log_in(client: httpx.AsyncClient, email: str = "ada@example.com", **form: str) -> LoggedIn:
    return tokens_in(await client.post("/login", data={"username": email, "password": PASSWORD, **form}))


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/refresh", data={"refresh_token": token})


def tokens_in(answer: httpx.Response) -> LoggedIn:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return LoggedIn(access=body["access_token"], refresh=body["refresh_token"])
