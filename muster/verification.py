"""One run of `muster verify`: what is compared, in which order, and what is told of it."""

import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from events.keyring import Keyring, WrongKey, open_keyring
from events.proofs.log_check import Checked, check_log
from events.proofs.notes import Checkpoint, Verifier
from events.reader import head_position
from muster.answers import Answer, Finding, Parts
from muster.differences import document_of, line_of
from muster.export_check import check_export, manifest_to_check
from muster.failures import CannotRun
from muster.progress import shown_progress
from muster.witnessing import read_checkpoint, read_key
from projector.findings import Finding as Difference
from projector.standing import CannotVerify, Standing, standing
from projector.topics_check import TopicsCheck, topics_check
from projector.verifying import ModelCheck, one_moment
from runtime.settings import Settings

KEYS_REMEMBERED: Final = 1000


async def verify_log(settings: Settings, *, key: Verifier | None, checkpoint: Checkpoint | None) -> Answer:
    """What of the log was compared, and what is wrong first. Raises psycopg's errors."""
    began = time.monotonic()
    async with one_moment(settings) as connection:
        with shown_progress("log", await head_position(connection)) as advanced:
            known = [checkpoint] if checkpoint is not None else []
            checked = await check_log(connection, pinned=key, known=known, advanced=advanced)
    return log_answer(checked, began)


def verify_export(folder: Path, *, key: Path, checkpoint: Path | None) -> Answer:
    """The same of an export, which needs no database. Raises CannotRun."""
    began = time.monotonic()
    verifier = read_key(key)
    kept = read_checkpoint(checkpoint, verifier) if checkpoint is not None else None
    manifest = manifest_to_check(folder)
    with shown_progress("export", int(manifest["events"])) as advanced:
        checked = check_export(folder, manifest, key=verifier, checkpoint=kept, advanced=advanced)
    return log_answer(checked, began)


def log_answer(checked: Checked, began: float) -> Answer:
    wrong = checked.wrong
    result: dict[str, Any] = {
        "events": checked.events,
        "tree": checked.tree,
        "checkpoints": checked.checkpoints,
        "proved": checked.proved,
        "wrong": asdict(wrong) if wrong is not None else None,
        "seconds": round(time.monotonic() - began, 2),
    }
    words = [
        (
            f"checked {checked.events:,} events against {checked.checkpoints:,} checkpoints, the newest of which covers"
            f" {checked.proved:,}, in {result['seconds']} s"
        )
    ]
    if wrong is None:
        return Answer(result=result, words=[*words, "nothing was altered"])
    words.append(f"ALTERED: position {wrong.position:,}: {wrong.what}")
    found = Finding(code="altered", detail=f"position {wrong.position}: {wrong.what}")
    return Answer(result=result, words=words, findings=[found])


async def verify_model(settings: Settings, *, every: bool, topics: bool, tail: int) -> Answer:
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
