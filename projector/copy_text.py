"""Rows as COPY reads them: text format, a line a row, as PostgreSQL's documentation of COPY has it."""

from collections.abc import Callable
from typing import Any, Final, cast

import orjson
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from projector.read_model import users
from projector.rows import Row

# control characters that text hardly ever holds: a line that has others of them is escaped field by field
NULL: Final = "\x1d"
BETWEEN: Final = "\x1e"

COLUMNS: Final = tuple(column for column in users.columns if column.computed is None)
COPY: Final = (
    f"COPY read_model.users_next ({', '.join(column.name for column in COLUMNS)}) FROM STDIN (NULL E'\\x1d')".encode()
)


def line_of(row: Row) -> bytes:
    """One line of COPY; keys that the table has no column for are passed over, columns without a key are null."""
    get = row.get
    fields: list[str] = []
    for name, encode in _ENCODERS:
        value = get(name)
        if value is None:
            fields.append(NULL)
        elif encode is not None:
            fields.append(encode(value))
        else:
            fields.append(_plain(value))
    line = BETWEEN.join(fields)
    if (
        "\\" in line
        or "\t" in line
        or "\n" in line
        or "\r" in line
        or line.count(BETWEEN) != _BETWEENS
        or line.count(NULL) != fields.count(NULL)
        or NULL in row.values()
    ):
        return _careful_line(row)
    return line.replace(BETWEEN, "\t").encode() + b"\n"


def _careful_line(row: Row) -> bytes:
    fields: list[str] = []
    for name, encode in _ENCODERS:
        value = row.get(name)
        if value is None:
            fields.append(NULL)
        else:
            fields.append(_escaped((encode or _plain)(value)))
    return "\t".join(fields).encode() + b"\n"


def _plain(value: Any) -> str:  # noqa: ANN401 - a JSON value
    """What is no text goes in as json_populate_recordset would take it."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:  # noqa: ANN401 - a JSON value
    return orjson.dumps(value).decode()


def _array(value: Any) -> str:  # noqa: ANN401 - a JSON value
    if not isinstance(value, list):
        return _json(value)
    return "{" + ",".join([_element(one) for one in cast("list[Any]", value)]) + "}"


def _element(value: Any) -> str:  # noqa: ANN401 - a JSON value
    if value is None:
        return "NULL"
    return '"' + _plain(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    # what is null is compared before escapes are read
    return text.replace(NULL, "\\x1d")


def _encoder(kind: object) -> Callable[[Any], str] | None:
    match kind:
        case JSONB():
            return _json
        case ARRAY():
            return _array
        case _:
            return None


_ENCODERS: Final = tuple((column.name, _encoder(column.type)) for column in COLUMNS)
_BETWEENS: Final = len(COLUMNS) - 1
