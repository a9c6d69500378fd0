import os
from collections.abc import Mapping

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from muster.embedded.ports import free_port, refusal
from muster.failures import CannotRun

PORTS = ("command_port", "query_port", "projector_port")


class Listening(BaseSettings):
    """Where the stack's processes are to listen, by their own variables; port 0 is any free one."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    command_port: int = Field(default=8001, ge=0, le=65535)
    query_port: int = Field(default=8002, ge=0, le=65535)
    projector_port: int = Field(default=8003, ge=0, le=65535)

    @property
    def reached_at(self) -> str:
        """The host for a URL from this machine."""
        if self.host in {"0.0.0.0", "::"}:  # noqa: S104 - this is asked, not bound
            return "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host


def listening_from_environment() -> Listening:
    try:
        return Listening()
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise CannotRun(f"{str(wrong['loc'][0]).upper()}: {wrong['msg']}") from None


def choose_ports(listening: Listening) -> Mapping[str, int]:
    """Give the number of each port of `PORTS`; raises CannotRun when one cannot be had."""
    if (error := refusal(listening.host, 0)) is not None:
        raise CannotRun(
            f"cannot listen on HOST={listening.host} ({_reason(error)}): set HOST to an address of this machine"
        )
    chosen: dict[str, int] = {}
    for name in PORTS:
        port: int = getattr(listening, name)
        variable = name.upper()
        if port == 0:
            chosen[name] = free_port(listening.host, taken=chosen.values())
        elif port in chosen.values():
            raise CannotRun(f"{variable}={port} is given to another process too: set {variable} to another port, or 0")
        elif (error := refusal(listening.host, port)) is not None:
            raise CannotRun(
                f"cannot listen on {listening.host}:{port} ({_reason(error)}): "
                f"set {variable} to another port, or to 0 for any free one"
            )
        else:
            chosen[name] = port
    return chosen


def _reason(error: OSError) -> str:
    # the standard library adds the address to strerror, and the message has it already
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
