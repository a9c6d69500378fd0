import httpx
import pytest

from tests.calls import codes, create
from tests.people import ADA_ID

ANYONE = str(ADA_ID)
PROTECTED = [
    ("POST", "/users"),
    ("PUT", f"/users/{ANYONE}"),
    ("PATCH", f"/users/{ANYONE}"),
    ("DELETE", f"/users/{ANYONE}"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    ("authorization", "code", "challenge"),
    [
        (None, "unauthenticated", 'Bearer realm="muster"'),
        ("", "unauthenticated", 'Bearer realm="muster"'),
        ("Bearer", "unauthenticated", 'Bearer realm="muster"'),
        ("Basic YTpi", "unauthenticated", 'Bearer realm="muster"'),
        ("Bearer wrong", "invalid_token", 'Bearer realm="muster", error="invalid_token"'),
        ("Bearer schl\xfcssel", "invalid_token", 'Bearer realm="muster", error="invalid_token"'),
    ],
)
async def test_a_caller_without_a_good_token_is_challenged(
    commands: httpx.AsyncClient, method: str, path: str, authorization: str | None, code: str, challenge: str
) -> None:
    del commands.headers["authorization"]
    headers = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    answer = await commands.request(method, path, json={"email": "ada@example.com"}, headers=headers)
    assert codes(answer, 401) == [code]
    assert answer.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("body", [b"{}", b'{"email": 7}'])
async def test_a_stranger_learns_nothing_of_what_is_wrong_with_the_request(
    commands: httpx.AsyncClient, body: bytes
) -> None:
    del commands.headers["authorization"]
    for kind in ("application/json", "text/plain"):
        answer = await commands.post("/users?x=1", content=body, headers={"Content-Type": kind, "If-Match": "x"})
        assert codes(answer, 401) == ["unauthenticated"]


async def test_a_lower_case_scheme_is_a_scheme(commands: httpx.AsyncClient) -> None:
    commands.headers["authorization"] = commands.headers["authorization"].replace("Bearer", "bearer")
    await create(commands)


@pytest.mark.parametrize(
    "path", ["/", "/user", "/users/", f"/users/{ANYONE}/", f"/users/{ANYONE}/x", "//users", "/%00"]
)
async def test_an_unknown_route_is_a_problem(commands: httpx.AsyncClient, path: str) -> None:
    assert codes(await commands.post(f"http://muster{path}", json={}), 404) == ["not_found"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/users", "POST"),
        ("DELETE", "/users", "POST"),
        ("GET", f"/users/{ANYONE}", "DELETE, PATCH, PUT"),
        ("POST", f"/users/{ANYONE}", "DELETE, PATCH, PUT"),
        ("BREW", f"/users/{ANYONE}", "DELETE, PATCH, PUT"),
        ("POST", "/livez", "GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    commands: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await commands.request(method, path)
    assert codes(answer, 405) == ["method_not_allowed"]
    assert answer.headers["allow"] == allowed


async def test_a_strange_host_header_harms_nothing(commands: httpx.AsyncClient) -> None:
    for host in ("muster", "[broken", "a/b", "a?b", "a@b", "", "x" * 1000):
        headers = {"Host": host, "Idempotency-Key": "create-1"}
        answer = await commands.post("/users", json={"email": "ada@example.com"}, headers=headers)
        assert (answer.status_code, answer.headers["event-position"]) == (201, "1")


async def test_every_answer_forbids_guessing_its_type(commands: httpx.AsyncClient) -> None:
    for path in ("/users", "/nowhere", "/livez", "/docs"):
        assert (await commands.get(path)).headers["x-content-type-options"] == "nosniff"
