"""Opened events as Apache Parquet, a row group for each batch."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

TEXT: Final[Any] = pa.string()
MOMENT: Final[Any] = pa.timestamp("us", tz="UTC")
# attributes and changes are JSON
SCHEMA: Final[Any] = pa.schema(
    [
        ("position", pa.int64()),
        ("recorded_at", MOMENT),
        *((name, TEXT) for name in ("event_id", "type", "user_id")),
        ("version", pa.int32()),
        *((name, TEXT) for name in ("actor_subject", "actor_kind", "actor_session", "reason")),
        *((name, TEXT) for name in ("request_id", "correlation_id", "causation_id", "unreadable")),
        ("erased", pa.bool_()),
        *((name, TEXT) for name in ("email", "display_name", "status")),
        ("roles", pa.list_(TEXT)),
        *((name, MOMENT) for name in ("created_at", "updated_at", "password_changed_at", "deleted_at")),
        *((name, TEXT) for name in ("attributes", "changes")),
    ]
)


class Parquet:
    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._writer.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA))

    def close(self) -> None:
        self._writer.close()
