import asyncio
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from sqlalchemy.exc import DBAPIError

from muster import admin, clients, keys, parked, rebuild, verify
from muster.environment import secret_from
from muster.failures import CannotRun, Refused
from muster.operator import OperatorOption, operator_named
from muster.target import target_home, target_settings, target_stack
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import configure_logging
from runtime.settings import BadSettings

STACK = "The development stack"
DEPLOYMENT = "Any deployment"


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"


app = typer.Typer(
    help="Operate Muster. Without settings of its own a command finds the development stack in MUSTER_HOME.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS = {
    "admin": admin.app,
    "clients": clients.app,
    "keys": keys.app,
    "parked": parked.app,
    "rebuild": rebuild.app,
    "verify": verify.app,
}
for name, group in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=DEPLOYMENT)


def main() -> None:
    """Run one command: exits with 0 for success, 1 for a finding, 2 when it was called or set up wrongly."""
    try:
        app()
    except Refused as error:
        print(f"muster: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (CannotRun, BadSettings, Unavailable, OutcomeUnknown) as error:
        print(f"muster: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except (psycopg.Error, DBAPIError) as error:
        told = error.orig if isinstance(error, DBAPIError) else error
        print(f"muster: the database: {' '.join(str(told).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command(rich_help_panel=STACK)
def run() -> None:
    """Run the whole development stack until Ctrl-C."""
    # each command imports what it alone needs: the others start faster without it
    from muster.listening import listening_from_environment  # noqa: PLC0415
    from muster.stack import run_stack  # noqa: PLC0415
    from muster.welcome import welcome  # noqa: PLC0415

    run_stack(target_home(), listening_from_environment(), say=_say, welcome=lambda stack: _say(welcome(stack)))


@app.command(rich_help_panel=STACK)
def status() -> None:
    """Ask every process of the running stack whether it is ready."""
    from muster.readiness import unreadiness  # noqa: PLC0415

    stack = target_stack()
    urls = {"command_api": stack.command_url, "query_api": stack.query_url, "projector": stack.projector_url}
    wrongs = {process: unreadiness(url) for process, url in urls.items()}
    for process, url in urls.items():
        print(f"{process:12} pid {stack.pids.get(process, '?'):<8} {url:28} {wrongs[process] or 'ready'}")
    if any(wrongs.values()):
        raise typer.Exit(1)


@app.command(rich_help_panel=DEPLOYMENT)
def migrate() -> None:
    """Bring the database to the newest schema and set the roles' passwords that are given.

    DATABASE_URL is the owner's; the passwords come from COMMAND_, QUERY_ and PROJECTOR_DATABASE_PASSWORD. Each may be
    in a file that the same name with _FILE names.
    """
    from migrations.apply import migrate as apply  # noqa: PLC0415
    from muster.role_passwords import role_passwords_from  # noqa: PLC0415

    database_url = secret_from(os.environ, "DATABASE_URL") or target_stack().database_url
    passwords = role_passwords_from(os.environ)
    apply(database_url, role_passwords=passwords)
    kept = "; passwords set: " + ", ".join(passwords) if passwords else ""
    print(f"the database is at the newest schema{kept}")


@app.command(rich_help_panel=DEPLOYMENT)
def relay() -> None:
    """Publish the log to Kafka until SIGTERM, in a process of its own."""
    from events.fitting import check_fitting  # noqa: PLC0415
    from events.relay import run_relay  # noqa: PLC0415

    settings = target_settings()
    check_fitting(settings)
    configure_logging("relay", settings.log_level)
    asyncio.run(run_relay(settings))


@app.command("seed", rich_help_panel=STACK)
def seed_log(
    users: Annotated[int, typer.Argument(min=1, metavar="N", help="How many users.")],
    *,
    seed: Annotated[int, typer.Option(help="Another number makes other users.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that seal; by default as many as there are cores.")
    ] = None,
) -> None:
    """Append N made-up users and N/2 further events to the log, straight into the database.

    Whoever runs it with the same seed on a log of the same length gets the same users, times and events; only keys and
    seals differ. Ended half-way, it leaves whole transactions. Refused in production.
    """
    from muster.seed import seed_users  # noqa: PLC0415

    seed_users(target_settings(), users, seed=seed, workers=workers)


@app.command(rich_help_panel=DEPLOYMENT)
def lag(
    *,
    max_seconds: Annotated[float, typer.Option(min=0, help="How old an event may get that is missing.")] = 10,
    max_events: Annotated[int | None, typer.Option(min=0, help="How many events may be missing at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, as GET /projection has it.")] = False,
) -> None:
    """Say how far the read model is behind the log, and whether it moves: straight from the database.

    DATABASE_URL is the query API's or the projector's; the processes may be down.

    Exits with 0 when the projection moves, is within the bounds and holds nobody back; with 1 when it is stalled or
    beyond the bounds, or something is parked; with 2 when that could not be checked, which is not healthy.
    """
    from muster.lag import tell_lag  # noqa: PLC0415

    tell_lag(target_settings("query_api"), max_seconds=max_seconds, max_events=max_events, as_json=as_json)


@app.command(rich_help_panel=DEPLOYMENT)
def operations(
    *,
    by: Annotated[str | None, typer.Option("--by", metavar="OPERATOR", help="Only this one's.")] = None,
    operation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only these: rebuild, parked, parked.retry, keys, clients, ...")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say what operators did, the newest first: who, when, with which parameters, and how it ended.

    DATABASE_URL is the command API's or the projector's.
    """
    from muster.operations import tell_operations  # noqa: PLC0415

    tell_operations(target_settings(), operator=by, operation=operation, limit=limit, as_json=as_json)


@app.command("import", rich_help_panel=DEPLOYMENT)
def import_file(
    file: Annotated[Path, typer.Argument(help="users.ndjson (as POST /users takes them, one a line), or users.csv.")],
    *,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be refused; write nothing.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why: kept with each event for ever, in the clear, so it must name nobody.")
    ] = None,
    operator: OperatorOption = None,
) -> None:
    """Create the users of a file: by the same rules as one at a time, as the same events, in batches.

    A line that is refused is told, and stops no other. The same file again goes on where a run that was killed has
    ended, within IDEMPOTENCY_TTL. DATABASE_URL, KEK and EMAIL_INDEX_KEY are the command API's.

    Exits with 0 when all are there; 1 when lines were refused; 2 when something it needs is missing.
    """
    from muster.importing import import_users  # noqa: PLC0415

    import_users(target_settings(), file, check=check, operator=operator_named(operator), reason=reason)


@app.command(rich_help_panel=DEPLOYMENT)
def export(
    folder: Annotated[Path, typer.Argument(help="An empty one, or one to make.")],
    *,
    kind: Annotated[ExportFormat, typer.Option("--format", help="What other tools read.")] = ExportFormat.JSONL,
    since: Annotated[
        str | None, typer.Option(metavar="POSITION|TIME", help="The first event; the log's by default.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="POSITION|TIME", help="The last event; the log's by default.")
    ] = None,
    opened: Annotated[
        bool, typer.Option("--opened", help="With personal data in the clear; Parquet is always so.")
    ] = False,
    operator: OperatorOption = None,
) -> None:
    """Write the log, as it is at this moment, to files with a manifest: JSON lines as stored, or opened for reading.

    As stored, what is personal stays sealed, and `muster import-log` makes it a log again. DATABASE_URL, and KEK for
    what is to be opened, are the projector's.
    """
    from muster.exporting import Asked, export_log  # noqa: PLC0415

    asked = Asked(
        folder=folder,
        format=kind.value,
        since=since,
        as_of=as_of,
        opened=opened or kind is ExportFormat.PARQUET,
    )
    export_log(target_settings("projector"), asked, operator_named(operator))


@app.command("import-log", rich_help_panel=DEPLOYMENT)
def import_exported_log(
    folder: Annotated[Path, typer.Argument(help="What `muster export` wrote.")],
    *,
    operator: OperatorOption = None,
) -> None:
    """Restore an export into an empty database: all of it, or nothing.

    DATABASE_URL is the owner's, as for `muster migrate`; KEK and EMAIL_INDEX_KEY those that the log was written with.
    Passwords are in no log: users need new ones. Then make the read model: `muster rebuild users`.
    """
    from muster.log_import import import_log  # noqa: PLC0415

    import_log(target_settings(), folder, operator_named(operator))


@app.command(rich_help_panel=DEPLOYMENT)
def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """Check settings, keys, database, clocks, log, broker and topics, and say how to mend what is wrong.

    With the command API's environment, else the running development stack. Exits with 0 when nothing fails, else 1.
    """
    from muster.doctor import examine  # noqa: PLC0415

    examine(as_json=as_json)


@app.command(rich_help_panel=DEPLOYMENT)
def replay(
    to_topic: Annotated[str, typer.Option("--to-topic", metavar="TOPIC", help="Made like the live one if missing.")],
    *,
    first: Annotated[
        str | None, typer.Option("--from", metavar="POSITION|TIME", help="The first event; the log's by default.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--until", metavar="POSITION|TIME", help="The last event; the log's by default.")
    ] = None,
    users: Annotated[str | None, typer.Option(metavar="ID,...|@FILE", help="Only of these users.")] = None,
    types: Annotated[str | None, typer.Option(metavar="TYPE,...", help="Only UserCreated, UserUpdated, ...")] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Events a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be sent.")] = False,
    force_live: Annotated[bool, typer.Option("--force-live", help="Even to the topic that everybody follows.")] = False,
    operator: OperatorOption = None,
) -> None:
    """Send events of the log to a topic: in order, with their ids, and a header `replay` that names this one.

    The same command again goes on where one that was killed has ended. DATABASE_URL and KEK are the projector's.

    Exits with 0 when all were sent; 1 when it was refused or some cannot be read; 2 when something it needs is missing.
    """
    from muster.replay import Asked, replay_log  # noqa: PLC0415

    asked = Asked(
        topic=to_topic,
        first=first,
        last=last,
        users=users,
        types=types,
        rate=rate,
        dry_run=dry_run,
        force_live=force_live,
    )
    replay_log(target_settings("projector"), asked, operator_named(operator))


@app.command("consume", rich_help_panel=DEPLOYMENT)
def consume_topic(
    topic: Annotated[str, typer.Argument(help="The topic.")] = "users.events.v1",
    *,
    key: Annotated[str | None, typer.Option(help="Only records with this key: a user's id.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print what a topic holds, a line of JSON for each record."""
    from muster.consume import consume  # noqa: PLC0415

    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or target_stack().kafka_bootstrap_servers
    asyncio.run(consume(servers, topic, key=key, follow=follow, say=_say))


@app.command(rich_help_panel=DEPLOYMENT)
def secrets(
    folder: Annotated[Path, typer.Argument(help="Where to make them; what is there stays.")],
) -> None:
    """Make the keys and database passwords that a deployment needs, each in a file of its own."""
    from muster.secret_files import make_secret_files  # noqa: PLC0415

    for file in make_secret_files(folder):
        print(f"made {file}")


@app.command(rich_help_panel=STACK)
def demo() -> None:
    """Tell the story of one user against the running stack, step by step."""
    from muster.demo import StepFailed, tell  # noqa: PLC0415

    try:
        asyncio.run(tell(target_stack(), print))
    except StepFailed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        raise typer.Exit(1) from None


@app.command(rich_help_panel=STACK)
def token(
    email: Annotated[str | None, typer.Option(help="Another user's than the stack's administrator's.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Where the user's password is; else it is asked for, or read from a pipe.")
    ] = None,
    operator: OperatorOption = None,
) -> None:
    """Log in and print an access token: TOKEN=$(muster token). It is recorded that it was issued."""
    from muster.entering import entered_password  # noqa: PLC0415
    from muster.issued import record_issue  # noqa: PLC0415
    from muster.login import WrongPassword, log_in  # noqa: PLC0415

    stack = target_stack()
    if email is None and password_file is None:
        password_file = Path(stack.admin_password_file)
    email = email or stack.admin_email
    try:
        issued = log_in(stack.command_url, email, entered_password(password_file, twice=False))
    except WrongPassword as error:
        raise Refused(f"{email}: {error}") from None
    record_issue(target_settings(), issued, operator_named(operator))
    print(issued)


@app.command(rich_help_panel=STACK)
def reset() -> None:
    """Delete the development stack's data."""
    home = target_home()
    home.drop()
    print(f"{home.folder} is gone")


def _say(words: str) -> None:
    try:
        print(words, flush=True)
    except BrokenPipeError:
        # whoever read along has left: the stack stays up
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - it is stdout until the process ends
