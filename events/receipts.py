"""What an erasure's receipt says: what was done where and when, and until when copies elsewhere may hold something."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from events.erasures import Erasure
from events.topics import ROLLED_WITHIN
from events.wire import time_to_wire
from runtime.fleeting import FORGOTTEN_WITHIN
from runtime.settings import Settings

# what cannot be found without the address that it came from goes with its age (identity.sessions.PURGES)
GUESSES_KEPT: Final = timedelta(days=1)

STEPS: Final = {
    "requested": "nobody changes the user any more but this",
    "deleted": "the user's last event",
    "erased": "the data key is destroyed, and this is removed: e-mail claim, password, sessions, login throttling,"
    " idempotency answers, what was parked, and the personal part of the read model's row",
    "buried": "the broker has the tombstone for the user's record",
    "forgotten": "no process remembers a key or a record",
}
EXAMPLE: Final[dict[str, Any]] = {
    "user_id": "0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11",
    "state": "done",
    "requested_at": "2026-03-03T08:15:00.000000Z",
    "completed_at": "2026-03-03T08:15:11.204410Z",
    "actor": {"subject": "0192d3c8-11f0-7aa0-b1b4-2f7cf0a4e0c3", "kind": "user"},
    "reason": "asked for by the person, case 17",
    "request_id": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "correlation_id": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "causation_id": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "position": 4712,
    "steps": [
        {
            "step": "erased",
            "where": "database",
            "what": STEPS["erased"],
            "done_at": "2026-03-03T08:15:00.020113Z",
            "removed": {"identity.sessions": 2, "log.user_keys": 1},
        }
    ],
    "horizon": [
        {
            "where": "users.events.v1",
            "what": "records of before",
            "until": "2026-03-11T08:15:01.204410Z",
            "set_by": "TOPIC_RETENTION_HOURS",
        }
    ],
    "nothing_after": "2026-04-02T08:15:00.020113Z",
}


class StepBody(BaseModel):
    step: Literal["requested", "deleted", "erased", "buried", "forgotten"]
    where: str
    what: str
    done_at: datetime | None = Field(description="null: still to be done")
    removed: dict[str, int] | None = Field(
        None, description="of the step `erased`: how many rows, by place, that the deletion had left"
    )


class HorizonBody(BaseModel):
    where: str
    what: str
    until: datetime | None = Field(description="null: it begins with a step that is still to be done")
    set_by: str = Field(description="the setting or the constant that bounds it")


class ReceiptBody(BaseModel):
    """What was done, where and when; and the time after which no copy is to hold anything, by the settings."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    user_id: UUID
    state: Literal["under way", "done"]
    requested_at: datetime
    completed_at: datetime | None
    actor: dict[str, Any]
    reason: str | None
    request_id: str
    correlation_id: str
    causation_id: str
    position: int | None = Field(description="of the UserDeleted")
    steps: list[StepBody]
    horizon: list[HorizonBody] = Field(description="stated from settings: what they bound is not looked at")
    nothing_after: datetime | None = Field(description="the last of the horizon")


def receipt_of(erasure: Erasure, settings: Settings) -> dict[str, Any]:
    """The JSON of ReceiptBody."""
    forgotten = None
    if erasure.erased_at is not None:
        forgotten = erasure.erased_at + timedelta(seconds=FORGOTTEN_WITHIN)
        forgotten = forgotten if forgotten <= datetime.now(UTC) else None
    horizon = [
        _until(
            settings.events_topic,
            "what was published before",
            erasure.buried_at,
            timedelta(hours=settings.topic_retention_hours) + ROLLED_WITHIN,
            "TOPIC_RETENTION_HOURS, and the topic's segment.ms",
        ),
        _until(
            settings.snapshot_topic,
            "the record that the tombstone replaces",
            erasure.buried_at,
            timedelta(hours=settings.snapshot_compaction_hours),
            "SNAPSHOT_COMPACTION_HOURS (the topic's max.compaction.lag.ms)",
        ),
        _until(
            "backups and archived WAL",
            "the key, and rows of before; sealed events open with the key alone",
            erasure.erased_at,
            timedelta(days=settings.backup_retention_days),
            "BACKUP_RETENTION_DAYS",
        ),
        _until(
            "identity.guesses",
            "keyed digests of where a login was tried from and whose",
            erasure.erased_at,
            GUESSES_KEPT,
            "a constant",
        ),
    ]
    untils = [one["until"] for one in horizon]
    return {
        "user_id": str(erasure.user_id),
        "state": "done" if erasure.completed_at is not None else "under way",
        "requested_at": time_to_wire(erasure.requested_at),
        "completed_at": _time(erasure.completed_at),
        "actor": erasure.metadata.actor.to_wire(),
        "reason": erasure.metadata.reason,
        "request_id": erasure.metadata.request_id,
        "correlation_id": erasure.metadata.correlation_id,
        "causation_id": erasure.metadata.causation_id,
        "position": erasure.position,
        "steps": [
            _step("requested", "log", erasure.requested_at),
            _step("deleted", "log", erasure.deleted_at),
            _step("erased", "database", erasure.erased_at) | {"removed": erasure.removed},
            _step("buried", settings.snapshot_topic, erasure.buried_at),
            _step("forgotten", f"every process, within {FORGOTTEN_WITHIN:g} s", forgotten),
        ],
        "horizon": horizon,
        "nothing_after": None if None in untils else max(untils),
    }


def _step(step: str, where: str, done_at: datetime | None) -> dict[str, Any]:
    return {"step": step, "where": where, "what": STEPS[step], "done_at": _time(done_at), "removed": None}


def _until(where: str, what: str, since: datetime | None, kept: timedelta, set_by: str) -> dict[str, Any]:
    return {"where": where, "what": what, "until": _time(since + kept) if since else None, "set_by": set_by}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time_to_wire(moment)
