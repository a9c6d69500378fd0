"""What the apps hold for identity's routes, and where a request comes from."""

from fastapi import Request

from events.keyring import Digester
from identity.door import Door
from identity.logins import Logins, Peer
from runtime.settings import Settings


def door_of(request: Request) -> Door:
    return request.app.state.door


def logins_of(request: Request) -> Logins:
    return request.app.state.logins


def digester_of(request: Request) -> Digester:
    return request.app.state.digester


def settings_of(request: Request) -> Settings:
    return request.app.state.settings


def peer_of(request: Request, device: str | None = None) -> Peer:
    address = request.client.host if request.client is not None else None
    return Peer(address=address, user_agent=request.headers.get("user-agent"), device=device)
