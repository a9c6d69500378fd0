"""What a receipt says, from an erasure and settings alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.erasures import Erasure
from events.receipts import ReceiptBody, receipt_of
from events.recording import Position
from runtime.fleeting import FORGOTTEN_WITHIN
from runtime.settings import settings_from_environment
from tests.people import ADA_ID, METADATA, NOON

SETTINGS = settings_from_environment(
    muster_mode="test",
    database_url="postgresql://127.0.0.1:1/nowhere",
    topic_retention_hours=48,
    snapshot_compaction_hours=12,
    backup_retention_days=7,
)


def erasure(**fields: Any) -> Erasure:  # noqa: ANN401 - fields of any type
    values: dict[str, Any] = {
        "user_id": ADA_ID,
        "requested_at": NOON,
        "metadata": METADATA,
        **dict.fromkeys(("position", "deleted_at", "erased_at", "removed", "buried_at", "completed_at")),
    }
    return Erasure(**values | fields)


def done(**fields: Any) -> Erasure:  # noqa: ANN401 - as above
    values: dict[str, Any] = {"position": Position(7), "removed": {}, "deleted_at": NOON, "erased_at": NOON}
    return erasure(
        **values | {"buried_at": NOON + timedelta(hours=1), "completed_at": NOON + timedelta(hours=2)} | fields
    )


def test_what_is_not_done_has_no_time_and_no_horizon() -> None:
    receipt = receipt_of(erasure(), SETTINGS)
    ReceiptBody.model_validate(receipt)
    assert (receipt["state"], receipt["nothing_after"]) == ("under way", None)
    assert [step["step"] for step in receipt["steps"] if step["done_at"]] == ["requested"]
    assert {one["until"] for one in receipt["horizon"]} == {None}


def test_the_horizon_is_what_the_settings_say() -> None:
    receipt = receipt_of(done(), SETTINGS)
    ReceiptBody.model_validate(receipt)
    untils = {one["where"]: datetime.fromisoformat(one["until"]) - NOON for one in receipt["horizon"]}
    assert untils == {
        "users.events.v1": timedelta(hours=1 + 48 + 24),
        "users.snapshot.v1": timedelta(hours=1 + 12),
        "backups and archived WAL": timedelta(days=7),
        "identity.guesses": timedelta(days=1),
    }
    assert datetime.fromisoformat(receipt["nothing_after"]) - NOON == timedelta(days=7)


@pytest.mark.parametrize(("ago", "forgotten"), [(FORGOTTEN_WITHIN - 5, False), (FORGOTTEN_WITHIN + 1, True)])
def test_processes_have_forgotten_when_their_time_is_over(ago: float, *, forgotten: bool) -> None:
    erased_at = datetime.now(UTC) - timedelta(seconds=ago)
    step = receipt_of(done(erased_at=erased_at), SETTINGS)["steps"][-1]
    assert (step["step"], step["done_at"] is not None) == ("forgotten", forgotten)
