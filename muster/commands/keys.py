import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

import typer

from muster.answers import Answer, answering
from muster.failures import CannotRun, Refused
from muster.operator import OperatorOption, operator_named
from muster.target import on_database, target_settings
from runtime import failpoints
from runtime.database import Connection
from runtime.settings import Settings

if TYPE_CHECKING:
    from identity.signing_keys import KeyRecord

State = Literal["void", "published", "signs", "verifies"]

app = typer.Typer(
    help="The keys that sign access tokens: list, rotate, revoke. The KEK and the e-mail index's key: rotate.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("list")
@answering
def list_keys() -> Answer:
    """Say what each key does, the oldest first."""
    # each command imports what it alone needs: the others start faster without it
    from identity.signing_keys import all_keys  # noqa: PLC0415

    keys = asyncio.run(on_database(target_settings(), all_keys))
    now = datetime.now(UTC)
    signing = [key.kid for key in keys if _signs(key, now)]
    states: dict[str, State] = {key.kid: _state(key, now, signs=key.kid in signing[-1:]) for key in keys}
    return Answer(
        result={"keys": [_document(key, states[key.kid]) for key in keys]},
        words=[f"{key.kid}  {_words(key, states[key.kid], now)}" for key in keys],
    )


@app.command()
@answering
def rotate(
    after: Annotated[
        int,
        typer.Option(
            min=1,
            max=86400,
            metavar="SECONDS",
            help="When the new key begins to sign. Other services that verify tokens must have seen it by then:"
            " ours do within a second, and the key set may be kept for 60 s.",
        ),
    ] = 120,
    operator: OperatorOption = None,
) -> Answer:
    """Publish a new key at once, which signs after a while; tokens of the keys before it stay valid."""
    from events import operations  # noqa: PLC0415
    from events.keyring import open_keyring  # noqa: PLC0415
    from identity.security_log import record  # noqa: PLC0415
    from identity.signing_keys import all_keys, insert_next, new_key  # noqa: PLC0415
    from muster.kek import check_kek  # noqa: PLC0415

    settings = target_settings()
    keks = open_keyring(settings).kek
    key = new_key(keks)

    async def publish(connection: Connection) -> None:
        await check_kek(connection, keks)
        if not _living(await all_keys(connection)):
            raise Refused("there is no key to take over from: a running command API makes the first one", code="no_key")
        async with connection.transaction():
            await insert_next(connection, key, signs_in=after)
            parameters = {"kid": key.kid, "signs_in": after}
            await operations.record(connection, operator_named(operator), "keys.rotate", parameters, "done")

    asyncio.run(on_database(settings, publish))
    record("keys.rotated", kid=key.kid, signs_in=after)
    return Answer(
        result={"kid": key.kid, "signs_in": after},
        words=[
            f"{key.kid} is published, and signs in {after} s.",
            "What the keys before it signed stays valid until it expires.",
        ],
    )


@app.command()
@answering
def revoke(
    kid: Annotated[str, typer.Argument(metavar="KID", help="As `muster keys list` has it.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Even if no other key signs yet.")] = False,
    operator: OperatorOption = None,
) -> Answer:
    """Trust a key no more: every token it signed is void within a second, on every instance.

    Sessions go on: a refresh gives a token of another key. If no other key signs yet, `muster keys rotate --after 1`
    makes one first, without a gap; with --force logins and refreshes are refused until there is one. A KID that begins
    with a dash goes behind two: muster keys revoke -- KID
    """
    from events import operations  # noqa: PLC0415
    from identity import signing_keys  # noqa: PLC0415
    from identity.security_log import record  # noqa: PLC0415

    async def void(connection: Connection) -> "Sequence[KeyRecord]":
        living = _living(await signing_keys.all_keys(connection))
        others = [key for key in living if key.kid != kid]
        if len(others) == len(living):
            raise Refused(f"no living key has the id {kid}: `muster keys list` names them", code="unknown_key")
        if not force and not any(_signs(key, datetime.now(UTC)) for key in others):
            raise Refused(
                f"no other key than {kid} signs now: make one with `muster keys rotate --after 1` and repeat this after"
                " a second, or say --force and let logins be refused until there is one",
                code="only_key",
            )
        async with connection.transaction():
            await signing_keys.revoke(connection, kid)
            parameters = {"kid": kid, "force": force}
            await operations.record(connection, operator_named(operator), "keys.revoke", parameters, "done")
        return others

    others = asyncio.run(on_database(target_settings(), void))
    record("keys.revoked", kid=kid)
    signing = any(_signs(key, datetime.now(UTC)) for key in others)
    words = [f"{kid} is void: within a second no token that it signed is valid any more. Sessions go on by a refresh."]
    if not others:
        words.append("There is no key now: a running command API makes one at once.")
    elif not signing:
        signs_from = _time(others[0].signs_from)
        words.append(f"No key signs before {signs_from}: `muster keys rotate --after 1` makes one that does.")
    return Answer(result={"kid": kid, "another_signs": signing}, words=words)


@app.command("rotate-kek")
@answering
def rotate_kek(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say how many keys each KEK wraps; 1 when some are another's.")
    ] = False,
    operator: OperatorOption = None,
) -> Answer:
    """Wrap with the current KEK what others in KEKS_KNOWN wrapped: the users' data keys and the signing keys.

    Everything runs on meanwhile. First every process is to know the new KEK (KEKS_KNOWN), then to have it as KEK with
    the former one in KEKS_KNOWN; then say this, and take the former one away. A run that was killed is gone on with by
    saying it again. DATABASE_URL is the command API's.

    Exits with 0 when the current KEK wraps everything; 1 when it does not; 2 when a KEK that is in use is not known.
    """
    from muster.kek_rotation import rotate_kek  # noqa: PLC0415

    settings = target_settings()
    _arm_failpoints(settings)
    return rotate_kek(settings, operator_named(operator), check=check)


@app.command("rotate-email-index")
@answering
def rotate_email_index(
    *,
    check: Annotated[bool, typer.Option("--check", help="Only say how many claims lack the next key.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Judge by the next key from now on.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Stay with the key that is in use.")] = False,
    operator: OperatorOption = None,
) -> Answer:
    """Give the index of e-mail addresses the key of EMAIL_INDEX_KEYS_KNOWN: every claim gets it beside the one in use.

    Everything runs on meanwhile, and no two users can have one address at any moment. First every process is to know
    both keys; then say this, and then --finish. A run that was killed is gone on with by saying it again. DATABASE_URL,
    KEK and the e-mail index keys are the command API's; for --finish, DATABASE_URL is the owner's.

    Exits with 0 when it is done; 1 when a claim lacks the next key; 2 when something it needs is missing.
    """
    from muster import email_index, email_index_swap  # noqa: PLC0415

    if check + finish + abandon > 1:
        raise CannotRun("--check, --finish and --abandon do not go together")
    settings, name = target_settings(), operator_named(operator)
    _arm_failpoints(settings)
    if check:
        return email_index.check_email_index(settings)
    if finish:
        return email_index_swap.finish_email_index(settings, name)
    if abandon:
        return email_index.abandon_email_index(settings, name)
    return email_index.fill_email_index(settings, name)


def _arm_failpoints(settings: Settings) -> None:
    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        raise CannotRun(str(error)) from None


def _living(keys: "Sequence[KeyRecord]") -> "Sequence[KeyRecord]":
    now = datetime.now(UTC)
    return [key for key in keys if key.verifies_until is None or key.verifies_until > now]


def _signs(key: "KeyRecord", now: datetime) -> bool:
    return key.signs_from <= now and bool(_living([key]))


def _state(key: "KeyRecord", now: datetime, *, signs: bool) -> State:
    if not _living([key]):
        return "void"
    if key.signs_from > now:
        return "published"
    return "signs" if signs else "verifies"


def _document(key: "KeyRecord", state: State) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "state": state,
        "published_at": key.published_at,
        "signs_from": key.signs_from,
        "verifies_until": key.verifies_until,
    }


def _words(key: "KeyRecord", state: State, now: datetime) -> str:
    match state:
        case "void":
            return f"void since {_time(key.verifies_until or now)}"
        case "published":
            return f"published, signs from {_time(key.signs_from)}"
        case "signs":
            return f"signs since {_time(key.signs_from)}"
        case "verifies":
            return "verifies" if key.verifies_until is None else f"verifies until {_time(key.verifies_until)}"
        case _:
            assert_never(state)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
