import secrets

import pytest
from fastapi import Request

from events.keyring import Digester
from identity.cookies import check_csrf, csrf_token
from runtime.problems import Problem

FORMER, CURRENT = secrets.token_bytes(32), secrets.token_bytes(32)


def request(token: str) -> Request:
    return Request({"type": "http", "headers": [(b"x-csrf-token", token.encode())]})


@pytest.mark.parametrize("key", [FORMER, CURRENT], ids=["former", "current"])
def test_a_pages_token_is_good_with_each_key_that_is_known(key: bytes) -> None:
    token = csrf_token(Digester(key), "session")
    check_csrf(request(token), Digester(CURRENT, [FORMER]), "session")
    with pytest.raises(Problem):
        check_csrf(request(token), Digester(CURRENT, [FORMER]), "another session")


def test_a_token_of_a_key_that_is_not_known_is_refused() -> None:
    with pytest.raises(Problem):
        check_csrf(request(csrf_token(Digester(FORMER), "session")), Digester(CURRENT), "session")
    with pytest.raises(Problem):
        check_csrf(request(""), None, "session")
