"""What the log's tree is made over: each event as it is stored, with what is personal in it sealed.

leaf of position n = JSON of the document below as RFC 8785 writes it (keys sorted, no spaces), in UTF-8
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

import orjson

from events.proofs.merkle import leaf_hash
from events.wire import time_to_wire

# what a stored document is made of
STORED: Final = "position, recorded_at, user_id, version, type, schema, event_id, data, sealed, metadata"


def stored_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """An event as it is stored, of a row of log.events: also a line of an export."""
    return {
        "position": row["position"],
        "recorded_at": time_to_wire(row["recorded_at"]),
        "user_id": str(row["user_id"]),
        "version": row["version"],
        "type": row["type"],
        "schema": row["schema"],
        "event_id": str(row["event_id"]),
        "data": row["data"],
        "sealed": base64.b64encode(row["sealed"]).decode(),
        "metadata": row["metadata"],
    }


def leaf_of(document: Mapping[str, Any]) -> bytes:
    """The leaf of a stored document. It has no fractions and only ASCII keys: sorted, it is as RFC 8785 has it."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def hash_of(row: Mapping[str, Any]) -> bytes:
    """The leaf hash of a row of log.events."""
    return leaf_hash(leaf_of(stored_document(row)))
