import asyncio
import hashlib
from base64 import b64encode
from typing import Any, LiteralString

import bcrypt
import httpx
import orjson
import psycopg
import pytest
import structlog
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from psycopg import sql

from command_api.app import create_app
from tests.calls import codes, create, errors
from tests.databases import MakeSettings
from tests.integration.identity.conftest import Visit
from tests.logins import EMAIL, PASSWORD, log_in, token_from, until_void, visitor
from tests.plain_http import PLAIN
from tests.processes import StartProcess
from tests.topics import records_of
from tests.waiting import aeventually, eventually

Owner = psycopg.Connection[dict[str, Any]]

# fixed, so that the tests that are named after a hash have the same names in every process
SALT = b"sodium chloride!"


def argon2(kind: Type, *, memory: int = 8, passes: int = 1, lanes: int = 1) -> str:
    hasher = PasswordHasher(time_cost=passes, memory_cost=memory, parallelism=lanes, type=kind)
    return hasher.hash(PASSWORD, salt=SALT)


def modular_bcrypt(prefix: str) -> str:
    stored = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$" + b"SodiumChloride.......O").decode()
    return f"${prefix}${stored.removeprefix('$2b$')}"


def phc_scrypt() -> str:
    digest = hashlib.scrypt(PASSWORD.encode(), salt=SALT, n=16, r=8, p=1, dklen=32)
    encoded = (b64encode(part).rstrip(b"=").decode() for part in (SALT, digest))
    return f"$scrypt$ln=4,r=8,p=1${'$'.join(encoded)}"


def crypt_scrypt() -> str:
    """As crypt(3) writes it: N, r and p, then the salt as it is, then the hash, least digits first."""
    digits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    digest = hashlib.scrypt(PASSWORD.encode(), salt=b"SodiumChloride", n=16, r=8, p=1, dklen=32)
    number = int.from_bytes(digest, "little")
    return f"$7$26..../....SodiumChloride${''.join(digits[number >> 6 * place & 63] for place in range(43))}"


FOREIGN = {
    "argon2id": argon2(Type.ID, memory=64, passes=2),
    "argon2i": argon2(Type.I),
    "argon2d": argon2(Type.D),
    "argon2id in 4 lanes": argon2(Type.ID, memory=64, lanes=4),
    "2a": modular_bcrypt("2a"),
    "2b": modular_bcrypt("2b"),
    "2y": modular_bcrypt("2y"),
    "scrypt": phc_scrypt(),
    "7": crypt_scrypt(),
}


def stored(owner: Owner) -> str:
    return owner.execute("SELECT password_hash FROM identity.credentials").fetchall()[0]["password_hash"]


def is_ours(password_hash: str, *, memory: int = 8, passes: int = 1) -> bool:
    """Whether a hash was made with the settings of these tests."""
    found = extract_parameters(password_hash)
    return (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, memory, passes, 1)


@pytest.mark.parametrize("given", FOREIGN.values(), ids=FOREIGN)
async def test_a_hash_from_elsewhere_logs_in_and_becomes_one_of_ours(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner, given: str
) -> None:
    user = await create(admin, EMAIL, password_hash=given)
    assert user["password_changed_at"] is not None
    assert stored(owner) == given
    assert (await log_in(visit(), password="wrong-password")).status_code == 401
    assert stored(owner) == given
    assert (await log_in(visit())).status_code == 200
    upgraded = stored(owner)
    assert is_ours(upgraded)
    assert PasswordHasher().verify(upgraded, PASSWORD)
    assert (await log_in(visit())).status_code == 200
    assert stored(owner) == upgraded
    assert (await log_in(visit(), password="wrong-password")).status_code == 401


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_hash_may_replace_a_password(admin: httpx.AsyncClient, visit: Visit, owner: Owner, method: str) -> None:
    user = await create(admin, EMAIL, password="an older password")
    me = visit(token=await token_from(visit(), EMAIL, "an older password"))
    answer = await admin.request(method, f"/users/{user['id']}", json={"password_hash": FOREIGN["2b"]})
    assert answer.json()["changed"] == ["password_changed_at"]
    assert stored(owner) == FOREIGN["2b"]
    await until_void(me)
    assert (await log_in(visit(), password="an older password")).status_code == 401
    assert (await log_in(visit())).status_code == 200


async def test_an_imported_password_is_changed_by_its_user(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner
) -> None:
    await create(admin, EMAIL, password_hash=FOREIGN["scrypt"])
    me = visit(token=await token_from(visit()))
    change = {"password": "a phrase of her own", "current_password": PASSWORD}
    assert (await me.patch("/users/me", json=change)).status_code == 200
    assert (await log_in(visit(), password="a phrase of her own")).status_code == 200
    assert is_ours(stored(owner))


async def test_a_password_longer_than_bcrypt_reads_is_upgraded_whole(admin: httpx.AsyncClient, visit: Visit) -> None:
    long = "x" * 72 + " and what bcrypt never saw"
    await create(admin, EMAIL, password_hash=bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode())
    assert (await log_in(visit(), password=long)).status_code == 200
    # from now on all of it counts
    assert (await log_in(visit(), password=long[:-1])).status_code == 401
    assert (await log_in(visit(), password=long)).status_code == 200


@pytest.mark.parametrize("password", ["nul\0inside", "\0" * 8, "x" * 1024, "schlu\u0308ssel"])
@pytest.mark.parametrize("kind", ["2b", "argon2id", "scrypt"])
async def test_no_password_breaks_the_verification(
    admin: httpx.AsyncClient, visit: Visit, kind: str, password: str
) -> None:
    await create(admin, EMAIL, password_hash=FOREIGN[kind])
    assert (await log_in(visit(), password=password)).status_code == 401


async def test_a_hash_is_made_anew_when_the_parameters_changed(
    admin: httpx.AsyncClient, make_settings: MakeSettings, owner: Owner
) -> None:
    await create(admin, EMAIL, password=PASSWORD)
    assert is_ours(stored(owner))
    dearer = create_app(make_settings("muster_command", argon2_memory_kib=16, argon2_time_cost=2))
    async with dearer.router.lifespan_context(dearer):
        assert (await log_in(visitor(dearer), password="wrong-password")).status_code == 401
        assert is_ours(stored(owner))
        assert (await log_in(visitor(dearer))).status_code == 200
        upgraded = stored(owner)
        assert is_ours(upgraded, memory=16, passes=2)
        assert (await log_in(visitor(dearer))).status_code == 200
        assert stored(owner) == upgraded


async def test_logins_at_once_all_succeed_whichever_makes_the_new_hash(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner
) -> None:
    await create(admin, EMAIL, password_hash=FOREIGN["2b"])
    answers = await asyncio.gather(*(log_in(visit()) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert is_ours(stored(owner))


@pytest.mark.parametrize(
    ("meanwhile", "status"),
    [
        # another instance's login made a new hash of the same password
        ("password_hash = %s", 200),
        # the password was changed, be it to the same one
        ("password_hash = %s, changed_at = changed_at + interval '1 second'", 401),
    ],
)
async def test_a_login_that_has_verified_what_is_replaced_meanwhile(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner, meanwhile: LiteralString, status: int
) -> None:
    await create(admin, EMAIL, password_hash=FOREIGN["2b"])
    with owner.transaction():
        owner.execute(f"UPDATE identity.credentials SET {meanwhile}", (argon2(Type.ID),))
        login = asyncio.create_task(log_in(visit()))

        async def waits() -> bool:
            return bool(owner.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())

        await aeventually(waits, what="the login waits to replace the hash")
    answer = await login
    assert answer.status_code == status


async def test_who_is_disabled_is_not_let_in_by_an_imported_hash(admin: httpx.AsyncClient, visit: Visit) -> None:
    await create(admin, EMAIL, password_hash=FOREIGN["2b"], status="disabled")
    for _ in range(2):
        assert (await log_in(visit())).status_code == 401


BROKEN = [
    "",
    "x",
    PASSWORD,
    "$",
    "$argon2id$",
    "$1$salt$hash",
    "$5$rounds=5000$salt$hash",
    "$6$salt$hash",
    "$2x$04$" + "a" * 53,
    "$2b$04$short",
    FOREIGN["2b"][:-1],
    FOREIGN["2b"] + "\n",
    " " + FOREIGN["2b"],
    FOREIGN["2b"] + "\0",
    FOREIGN["argon2id"] + "é",
    FOREIGN["argon2id"].replace("$v=19", "$v=99"),
    FOREIGN["argon2id"].rpartition("$")[0],
    "{SSHA}" + "a" * 32,
    "pbkdf2_sha256$1000$salt$hash",
    "a" * 600,
]
TOO_COSTLY = [
    FOREIGN["2b"].replace("$04$", "$16$"),
    FOREIGN["2b"].replace("$04$", "$31$"),
    FOREIGN["argon2i"].replace("m=8", "m=9999999"),
    FOREIGN["argon2i"].replace("m=8", "m=262145"),
    FOREIGN["argon2i"].replace("t=1", "t=17"),
    FOREIGN["argon2i"].replace("p=1", "p=17").replace("m=8", "m=4096"),
    FOREIGN["scrypt"].replace("ln=4", "ln=30"),
    FOREIGN["scrypt"].replace("r=8", "r=65"),
    FOREIGN["scrypt"].replace("p=1", "p=17"),
]


@pytest.mark.parametrize("given", BROKEN + TOO_COSTLY)
async def test_a_hash_that_could_never_be_verified_is_refused(
    admin: httpx.AsyncClient, owner: Owner, given: str
) -> None:
    user = await create(admin, "grace@example.com")
    path = f"/users/{user['id']}"
    for answer in (
        await admin.post("/users", json={"email": EMAIL, "password_hash": given}),
        await admin.put(path, json={"password_hash": given}),
        await admin.patch(path, json={"password_hash": given, "display_name": "Grace"}),
    ):
        [fault] = errors(answer, 422)
        assert (fault["code"], fault["pointer"]) == ("unusable_hash", "#/password_hash")
        assert len(given) < 12 or given not in answer.text
    assert owner.execute("SELECT 1 FROM identity.credentials").fetchall() == []
    assert owner.execute("SELECT position FROM log.head").fetchall() == [{"position": 1}]


async def test_a_password_and_a_hash_together_are_refused(admin: httpx.AsyncClient) -> None:
    user = await create(admin, "grace@example.com")
    both = {"password": PASSWORD, "password_hash": FOREIGN["2b"]}
    for answer in (
        await admin.post("/users", json={"email": EMAIL, **both}),
        await admin.put(f"/users/{user['id']}", json=both),
        await admin.patch(f"/users/{user['id']}", json=both),
    ):
        assert codes(answer, 422) == ["password_twice"]
        assert PASSWORD not in answer.text
        assert FOREIGN["2b"] not in answer.text


async def test_ones_own_hash_cannot_be_set(admin: httpx.AsyncClient, visit: Visit, owner: Owner) -> None:
    await create(admin, EMAIL, password=PASSWORD)
    me = visit(token=await token_from(visit()))
    before = stored(owner)
    for method in ("PUT", "PATCH"):
        body = {"password_hash": FOREIGN["2b"], "current_password": PASSWORD}
        assert (await me.request(method, "/users/me", json=body)).status_code == 422
    assert stored(owner) == before


def secrets_in(text: str, *hashes: str) -> list[str]:
    """What of the password, and of the telling ends of these hashes, is in a text."""
    told = [PASSWORD, "a phrase of her own", *(stored.rpartition("$")[2][-20:] for stored in hashes)]
    return [secret for secret in told if secret in text]


async def test_no_hash_and_no_password_is_answered_logged_or_kept_in_the_log(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    try:
        user = await create(admin, EMAIL, password_hash=FOREIGN["2b"])
        path = f"/users/{user['id']}"
        login = await log_in(visit())
        me = visit(token=login.json()["access_token"])
        upgraded = stored(owner)
        answers = [
            login,
            await log_in(visit(), password="a phrase of her own"),
            await me.patch("/users/me", json={"password": "a phrase of her own", "current_password": "wrong"}),
            await me.patch("/users/me", json={"password": "a phrase of her own", "current_password": PASSWORD}),
            await admin.patch(path, json={"password_hash": FOREIGN["scrypt"]}, headers={"Idempotency-Key": "k"}),
            await admin.patch(path, json={"password_hash": FOREIGN["scrypt"]}, headers={"Idempotency-Key": "k"}),
            await admin.patch(path, json={"password_hash": FOREIGN["2b"][:-3]}),
            await admin.patch(path, json={"password_hash": FOREIGN["2b"], "password": PASSWORD}),
            await admin.delete(path),
        ]
    finally:
        structlog.reset_defaults()
    assert [answer.status_code for answer in answers] == [200, 401, 403, 200, 200, 200, 422, 422, 200]
    hashes = (*FOREIGN.values(), upgraded)
    for answer in answers:
        assert secrets_in(answer.text, *hashes) == []
    logged = capsys.readouterr()
    assert "login.succeeded" in logged.out
    assert secrets_in(logged.out + logged.err, *hashes) == []
    assert secrets_in(text_of(owner, "log"), *hashes) == []
    # a deleted user's is forgotten
    assert owner.execute("SELECT 1 FROM identity.credentials").fetchall() == []


def text_of(owner: Owner, schema: str) -> str:
    """All that a schema holds, as text, with binary values also shown as the text that they may be."""
    tables = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,)).fetchall()
    text = ""
    for table in tables:
        for row in owner.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table["tablename"]))):
            text += "".join(
                value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row.values()
            )
    return text


def test_no_hash_and_no_password_is_published(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    process = start_process("command_api").wait_until_ready()
    with process.client() as admin:
        user = admin.post("/users", json={"email": EMAIL, "password_hash": FOREIGN["2b"]}).json()
        fields = {"username": EMAIL, "password": PASSWORD}
        assert httpx.post(f"{process.url}/login", data=fields, verify=PLAIN, trust_env=False).status_code == 200
        upgraded = stored(owner)
        changed = admin.patch(f"/users/{user['id']}", json={"password": "a phrase of her own"})
        assert changed.status_code == 200
        created = admin.post("/users", json={"email": "grace@example.com", "password": PASSWORD})
        assert created.status_code == 201
    settings = make_settings("muster_command", broker=True)
    head = int(created.headers["event-position"])
    eventually(
        lambda: owner.execute("SELECT max(position) AS p FROM log.publication").fetchall()[0]["p"] == head,
        what="the relay has published everything",
    )
    for topic in (settings.events_topic, settings.snapshot_topic):
        records = records_of(settings, topic)
        assert len(records) >= 2
        text = "".join(orjson.dumps([record.key, record.headers, record.value]).decode() for record in records)
        assert secrets_in(text, *FOREIGN.values(), upgraded) == []
    assert secrets_in(process.log.read_text(), *FOREIGN.values(), upgraded) == []
