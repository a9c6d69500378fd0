"""Where a request comes from is what the peer's address says, unless the peer is a proxy that was named."""

import httpx

from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess

TRIES = 3


def guess(process: Process, address: str) -> int:
    form = {"username": "nobody@example.com", "password": "wrong"}
    return httpx.post(
        f"{process.url}/login", data=form, headers={"X-Forwarded-For": address}, verify=PLAIN, trust_env=False
    ).status_code


def test_a_forwarded_address_is_heeded_from_a_trusted_proxy_alone(start_process: StartProcess) -> None:
    anyone = start_process("command_api", broker=False, guesses_per_account=TRIES)
    behind = start_process("command_api", broker=False, guesses_per_account=TRIES, trusted_proxies="127.0.0.0/8")
    for process in (anyone, behind):
        process.wait_until_ready()

    lying = [guess(anyone, f"192.0.2.{number}") for number in range(TRIES + 1)]
    assert lying == [401] * TRIES + [429]

    forwarded = [guess(behind, f"198.51.100.{number}") for number in range(TRIES + 1)]
    assert forwarded == [401] * (TRIES + 1)
    again = [guess(behind, "203.0.113.7") for _ in range(TRIES + 1)]
    assert again == [401] * TRIES + [429]
    # a client cannot put an address in front of what the proxy says
    assert guess(behind, "192.0.2.99, 203.0.113.7") == 429
