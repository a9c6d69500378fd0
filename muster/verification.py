"""One run of `muster verify model`: what is compared, in which order, and what is told of it."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from events.keyring import Keyring, WrongKey, open_keyring
from muster.answers import Answer, Finding, Parts
from muster.differences import document_of, line_of
from muster.failures import CannotRun
from muster.progress import shown_progress
from projector.findings import Finding as Difference
from projector.standing import CannotVerify, Standing, standing
from projector.topics_check import TopicsCheck, topics_check
from projector.verifying import ModelCheck, one_moment
from runtime.settings import Settings

KEYS_REMEMBERED: Final = 1000


async def verify(settings: Settings, *, every: bool, topics: bool, tail: int) -> Answer:
    """What was compared, and the differences. Raises CannotRun, BadKey and psycopg's errors."""
    run = _Run(every=every)
    try:
        async with AsyncExitStack() as stack:
            check = await stack.enter_async_context(topics_check(settings)) if topics else None
            return await run.compare(settings, check, tail=tail)
    except CannotVerify as error:
        raise CannotRun(f"could not check: {error}") from None
    except WrongKey as error:
        raise CannotRun(f"could not check: {error}", code="wrong_key") from None


@dataclass(slots=True, kw_only=True)
class _Run:
    every: bool
    differences: int = 0
    told: Parts = field(default_factory=Parts)
    began: float = field(default_factory=time.monotonic)

    async def compare(self, settings: Settings, topics: TopicsCheck | None, *, tail: int) -> Answer:
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
        return self._answer(stands, model, topics)

    def _report(self, difference: Difference) -> None:
        self.differences += 1
        if self.differences == 1 or self.every:
            self.told.add(document_of(difference), line_of(difference))

    def _answer(self, stands: Standing, model: ModelCheck, topics: TopicsCheck | None) -> Answer:
        compared = model.tally
        summary: dict[str, Any] = {
            "differences": self.differences,
            "found": self.told.documents,
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
        seconds, reached = summary["seconds"], summary["reached"]
        words = [
            (
                f"compared {compared.users:,} users, {compared.events:,} events and {compared.rows:,} rows, at position"
                f" {stands.head:,}, of which the read model has reached {reached:,}, in {seconds} s"
            )
        ]
        if topics is None:
            words.append("the topics were not compared (--no-topics)")
        else:
            words.append(f"compared {topics.tally.tail:,} records of events and {topics.tally.snapshot:,} of snapshots")
        if stands.parked or stands.unpublished or stands.discarded:
            words.append(
                f"users held back: {len(stands.parked)} by the projector, {len(stands.unpublished)} by the relay;"
                f" {stands.discarded} events were given up"
            )
        if not self.differences:
            return Answer(result=summary, words=[*words, "no difference"])
        found = Finding(code="difference", detail=f"differences: {self.differences:,}")
        return Answer(result=summary, words=words, findings=[found])
