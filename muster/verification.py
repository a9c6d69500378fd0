"""One run of `muster verify model`: what is compared, in which order, and what is told of it."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from events.keyring import Keyring, WrongKey, open_keyring
from muster.differences import document_of, line_of
from muster.failures import CannotRun
from muster.progress import on_terminal, say, shown_progress, tell_line
from projector.findings import Finding
from projector.standing import CannotVerify, Standing, standing
from projector.topics_check import TopicsCheck, topics_check
from projector.verifying import ModelCheck, one_moment
from runtime.settings import Settings

KEYS_REMEMBERED: Final = 1000


async def verify(settings: Settings, *, every: bool, topics: bool, tail: int) -> int:
    """The number of differences. Raises CannotRun, BadKey and psycopg's errors."""
    run = _Run(every=every)
    try:
        async with AsyncExitStack() as stack:
            check = await stack.enter_async_context(topics_check(settings)) if topics else None
            await run.compare(settings, check, tail=tail)
    except CannotVerify as error:
        raise CannotRun(f"could not check: {error}") from None
    except WrongKey as error:
        raise CannotRun(f"could not check: {error}") from None
    return run.findings


@dataclass(slots=True, kw_only=True)
class _Run:
    every: bool
    findings: int = 0
    began: float = field(default_factory=time.monotonic)

    async def compare(self, settings: Settings, topics: TopicsCheck | None, *, tail: int) -> None:
        # each user's key is met once: remembering them all would only fill memory
        keyring = Keyring(open_keyring(settings).kek, capacity=KEYS_REMEMBERED)
        async with one_moment(settings) as connection:
            stands = await standing(connection, settings)
            model = ModelCheck(connection, keyring, stands, self._report, explain_all=self.every)
            with shown_progress("read model", stands.users) as advanced:
                await model.run(advanced)
            if topics is not None:
                with shown_progress("topics", topics.records) as advanced:
                    await topics.run(connection, keyring, stands, self._report, tail=tail, advanced=advanced)
        self._sum_up(stands, model, topics)

    def _report(self, finding: Finding) -> None:
        self.findings += 1
        if self.findings > 1 and not self.every:
            return
        if on_terminal():
            say(line_of(finding))
        else:
            tell_line(difference=document_of(finding))

    def _sum_up(self, stands: Standing, model: ModelCheck, topics: TopicsCheck | None) -> None:
        compared = model.tally
        summary: dict[str, Any] = {
            "differences": self.findings,
            "position": stands.head,
            "reached": min(stands.reached.values()),
            "users": compared.users,
            "events": compared.events,
            "rows": compared.rows,
            "parked": {"projector": len(stands.parked), "relay": len(stands.unpublished)},
            "discarded": stands.discarded,
            "topics": None if topics is None else {"events": topics.tally.tail, "snapshot": topics.tally.snapshot},
            "seconds": round(time.monotonic() - self.began, 2),
        }
        if not on_terminal():
            tell_line(**summary)
            return
        say(
            f"compared {compared.users:,} users, {compared.events:,} events and {compared.rows:,} rows at position"
            f" {stands.head:,}, of which the read model has reached {summary['reached']:,}, in {summary['seconds']} s"
        )
        if topics is None:
            say("the topics were not compared (--no-topics)")
        else:
            say(f"compared {topics.tally.tail:,} records of events and {topics.tally.snapshot:,} of snapshots")
        if stands.parked or stands.unpublished or stands.discarded:
            say(
                f"users held back: {len(stands.parked)} by the projector, {len(stands.unpublished)} by the relay;"
                f" {stands.discarded} events were given up"
            )
        say("no difference" if not self.findings else f"DIFFERENCES: {self.findings:,}")
