import socket

import pytest

from muster.embedded.ports import free_port
from muster.failures import CannotRun
from muster.listening import PORTS, Listening, choose_ports, listening_from_environment


def test_port_0_becomes_any_free_port_and_no_two_are_the_same() -> None:
    ports = choose_ports(Listening(command_port=0, query_port=0, projector_port=0))
    assert list(ports) == list(PORTS)
    assert len(set(ports.values())) == 3
    assert all(ports.values())


def test_a_port_given_twice_is_refused() -> None:
    port = free_port()
    with pytest.raises(CannotRun, match=rf"^QUERY_PORT={port} is given to another process too"):
        choose_ports(Listening(command_port=port, query_port=port, projector_port=0))


def test_a_taken_port_names_the_variable_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotRun, match="set PROJECTOR_PORT to"):
        choose_ports(Listening(command_port=0, query_port=0, projector_port=taken.getsockname()[1]))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CannotRun, match=r"HOST=192\.0\.2\.1"):
        choose_ports(Listening(host="192.0.2.1", command_port=0, query_port=0, projector_port=0))


def test_a_port_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMAND_PORT", "http")
    with pytest.raises(CannotRun, match=r"^COMMAND_PORT: "):
        listening_from_environment()


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")],  # noqa: S104 - nothing listens there
)
def test_urls_name_a_host_that_this_machine_reaches(host: str, reached: str) -> None:
    assert Listening(host=host).reached_at == reached
