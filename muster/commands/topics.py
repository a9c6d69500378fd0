"""Commands about the topics: publishing, sending again, looking."""

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from muster.answers import AS_JSON, Answer, answering
from muster.failures import CannotRun
from muster.operator import OperatorOption, operator_named
from muster.target import target_broker, target_settings
from runtime.logs import configure_logging
from runtime.settings import broker_settings_from_environment

PANEL = "Any deployment"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def relay() -> None:
    """Publish the log to Kafka, and sign what it has become, until SIGTERM: for command APIs with RELAY=false."""
    import uvloop  # noqa: PLC0415

    from events.fitting import check_fitting  # noqa: PLC0415
    from events.keyring import open_keyring  # noqa: PLC0415
    from events.leadership import run_alone  # noqa: PLC0415
    from events.proofs.integrator import Integrator  # noqa: PLC0415
    from events.relay import Relay  # noqa: PLC0415
    from runtime.serving import settle_memory  # noqa: PLC0415

    settings = target_settings()
    check_fitting(settings)
    configure_logging("relay", settings.log_level)
    keyring = open_keyring(settings)
    leaders = [Relay(settings, keyring), Integrator(settings, keyring)]
    settle_memory()
    uvloop.run(run_alone(leaders))


@app.command(rich_help_panel=PANEL)
@answering
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
) -> Answer:
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
    return replay_log(target_settings("projector"), asked, operator_named(operator))


class Sampled(StrEnum):
    """What there are samples of."""

    CREATED = "user.created"
    UPDATED = "user.updated"
    DELETED = "user.deleted"
    ERASED = "user.erased"
    SNAPSHOT = "user.snapshot"
    TOMBSTONE = "user.tombstone"


@app.command("trigger", rich_help_panel=PANEL)
@answering
def trigger_sample(
    kind: Annotated[Sampled, typer.Argument(metavar="TYPE", help=f"One of {', '.join(Sampled)}.")],
    *,
    to_topic: Annotated[
        str, typer.Option("--to-topic", metavar="TOPIC", help="One of your own; made like the live one if missing.")
    ],
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Whom it is about: goes on from what the topic has of them.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many: of as many users, unless --user.")] = 1,
) -> Answer:
    """Send samples to a topic of your own, so that you see your handler run.

    Each is a record as the live topic has it (the last two as the compacted one) of a person who does not exist, with
    a header `sample`. A live topic is refused. It needs a broker and nothing else.
    """
    from muster.trigger import Asked, trigger  # noqa: PLC0415

    return trigger(target_broker(), Asked(kind=kind.value, topic=to_topic, count=count, user=user))


@app.command(rich_help_panel=PANEL)
@answering
def acls(
    *,
    relay: Annotated[str, typer.Option(metavar="NAME", help="The command API's and the relay's.")] = "muster-relay",
    projector: Annotated[str, typer.Option(metavar="NAME", help="The projector's.")] = "muster-projector",
    subscriber: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One that may read, in groups NAME.*; again for more.")
    ] = None,
) -> Answer:
    """Print the rights that each principal needs at the brokers, as commands of Kafka's own tool; nothing is changed.

    Topics and group are those of the settings (EVENTS_TOPIC, PROJECTOR_GROUP and the others).
    """
    from muster.acls import rights  # noqa: PLC0415

    settings = broker_settings_from_environment()
    needed = list(rights(settings, relay=relay, projector=projector, subscribers=subscriber or []))
    return Answer(
        result={"rights": [one.to_wire() for one in needed]},
        words=[one.command(settings.kafka_bootstrap_servers) for one in needed],
    )


@app.command("consume", rich_help_panel=PANEL)
@answering
def consume_topic(
    topic: Annotated[str, typer.Argument(help="The topic.")] = "users.events.v1",
    *,
    key: Annotated[str | None, typer.Option(help="Only records with this key: a user's id.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> Answer:
    """Print what a topic holds, a line of JSON for each record."""
    from muster.consume import consume  # noqa: PLC0415

    if follow and AS_JSON.get():
        raise CannotRun("--follow never ends, and --json tells at the end: say one of them", code="usage")
    told = asyncio.run(consume(target_broker(), topic, key=key, follow=follow))
    return Answer(result={"topic": topic, "records": told.documents})
