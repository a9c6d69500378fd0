"""Whether two versions of a body are compatible both ways: each is read by whoever knows the other alone.

Writers write what their schema declares and no more, readers pass over what theirs does not: so a field may come or go
if it is optional, and nothing that both know may differ in what it can be. This is FULL compatibility as schema
registries call it; against every version that was published, FULL_TRANSITIVE.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

Schema = Mapping[str, Any]

# what a schema tells people, and nothing of what is allowed
ANNOTATIONS: Final = frozenset(
    {"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default", "deprecated"}
)
KEPT: Final = "leave the field as it is and add another, optional, beside it"
OPTIONAL: Final = "declare it NotRequired, and say what it means when it is not there"
STILL: Final = "keep writing it; its description may say that it is deprecated, and what to read instead"

_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_BRANCH: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", *_LOWER, *_UPPER}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """`field` is a path such as user.status; `instead` is what to do."""

    field: str
    problem: str
    instead: str


def breaks_between(new: Schema, old: Schema, *, old_version: int) -> list[Break]:
    """What keeps readers of one from what is written by the other."""
    found = [*_unread(_Side(old, old), _Side(new, new), "", _OldReader(old_version))]
    found += _unread(_Side(new, new), _Side(old, old), "", _NewReader(old_version))
    # told once when both directions have the same to say
    return list({(one.field, one.instead): one for one in reversed(found)}.values())[::-1]


def same_structure(one: Schema, other: Schema) -> bool:
    """Whether they differ in words alone."""
    return orjson.dumps(_bare(one), option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        _bare(other), option=orjson.OPT_SORT_KEYS
    )


@dataclass(frozen=True, slots=True)
class _OldReader:
    """Consumers that know an old version, and get what is written now."""

    version: int

    def lacks(self, field: str) -> Break:
        problem = f"may be missing now, and consumers that know version {self.version} need it"
        return Break(field=field, problem=problem, instead=STILL)

    def refuses(self, field: str, what: str) -> Break:
        problem = f"may be {what} now, which consumers that know version {self.version} do not take"
        return Break(field=field, problem=problem, instead=KEPT)


@dataclass(frozen=True, slots=True)
class _NewReader:
    """Whoever knows the new version, and gets what was written before."""

    version: int

    def lacks(self, field: str) -> Break:
        problem = f"is required now, and events of version {self.version} may lack it"
        return Break(field=field, problem=problem, instead=OPTIONAL)

    def refuses(self, field: str, what: str) -> Break:
        problem = f"cannot be {what} any more, which events of version {self.version} may have"
        return Break(field=field, problem=problem, instead=KEPT)


_Reader = _OldReader | _NewReader


@dataclass(frozen=True, slots=True)
class _Side:
    """A schema within the document that its references are into."""

    root: Schema
    at: Schema

    def of(self, at: Schema) -> "_Side":
        return _Side(self.root, at)

    def branches(self) -> list["_Side"]:
        """Its alternatives, each of one type or of any."""
        at = self.at
        if "$ref" in at:
            name = str(at["$ref"]).removeprefix("#/$defs/")
            rest = {key: value for key, value in at.items() if key != "$ref"}
            return self.of({**self.root["$defs"][name], **rest}).branches()
        for keyword in ("anyOf", "oneOf"):
            if keyword in at:
                return [branch for one in at[keyword] for branch in self.of(one).branches()]
        types: object = at.get("type")
        if isinstance(types, list):
            return [self.of({**at, "type": one}) for one in cast("list[str]", types)]
        return [self]


def _unread(reader: _Side, writer: _Side, field: str, who: _Reader) -> Iterator[Break]:
    """What the writer may write and the reader does not take."""
    for written in writer.branches():
        candidates = [one for one in reader.branches() if _takes_type(one.at.get("type"), written.at.get("type"))]
        if not candidates:
            yield who.refuses(field or "the body", written.at.get("type", "anything"))
            continue
        judged = [list(_within(one, written, field, who)) for one in candidates]
        if all(judged):
            yield from min(judged, key=len)


def _takes_type(reader: str | None, writer: str | None) -> bool:
    return reader is None or reader == writer or (reader == "number" and writer == "integer")


def _within(reader: _Side, writer: _Side, field: str, who: _Reader) -> Iterator[Break]:
    yield from _values(reader.at, writer.at, field, who)
    for keyword in sorted((reader.at.keys() | writer.at.keys()) - _BRANCH - ANNOTATIONS):
        taken, own = reader.at.get(keyword), writer.at.get(keyword)
        # of a keyword that is not looked into, nothing is known but that it is the same
        if taken != own and not (taken is None and keyword in {"format", "pattern"}):
            yield who.refuses(field, f"of {keyword} {_told([own])} instead of {_told([taken])}")
    if "items" in reader.at:
        yield from _unread(reader.of(reader.at["items"]), writer.of(writer.at.get("items", {})), f"{field}[]", who)
    yield from _fields(reader, writer, field, who)


def _values(reader: Schema, writer: Schema, field: str, who: _Reader) -> Iterator[Break]:
    taken, may_be = _listed(reader), _listed(writer)
    if taken is not None:
        if may_be is None:
            yield who.refuses(field, f"anything but {_told(taken)}")
        elif beyond := [value for value in may_be if value not in taken]:
            yield who.refuses(field, _told(beyond))
    for keywords, further in ((_LOWER, min), (_UPPER, max)):
        for keyword in keywords:
            bound, own = reader.get(keyword), writer.get(keyword)
            if bound is not None and (own is None or further(bound, own) != bound):
                yield who.refuses(field, f"of {keyword} {_told([own])} instead of {bound}")


def _fields(reader: _Side, writer: _Side, field: str, who: _Reader) -> Iterator[Break]:
    known, declared = reader.at.get("properties", {}), writer.at.get("properties", {})
    for name in reader.at.get("required", ()):
        if name not in writer.at.get("required", ()):
            yield who.lacks(_path(field, name))
    rest = reader.at.get("additionalProperties", True)
    for name, schema in declared.items():
        path = _path(field, name)
        if name in known:
            yield from _unread(reader.of(known[name]), writer.of(schema), path, who)
        elif rest is False:
            yield who.refuses(path, "there")
        elif isinstance(rest, dict):
            yield from _unread(reader.of(cast("Schema", rest)), writer.of(schema), path, who)
    others = writer.at.get("additionalProperties")
    if isinstance(rest, dict) and others is not None and others is not False:
        further: Schema = {} if others is True else others
        yield from _unread(reader.of(cast("Schema", rest)), writer.of(further), _path(field, "*"), who)


def _listed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _told(values: Iterable[object]) -> str:
    return ", ".join(orjson.dumps(value).decode() for value in values)


def _path(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _bare(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Without what is only told, and with what is referred to; names of fields are no keywords."""
    return _stripped(schema, schema)


def _stripped(root: Schema, at: Any) -> Any:  # noqa: ANN401 - likewise
    if isinstance(at, list):
        return [_stripped(root, one) for one in cast("list[Any]", at)]
    if not isinstance(at, dict):
        return at
    node = cast("dict[str, Any]", at)
    if "$ref" in node:
        name = str(node["$ref"]).removeprefix("#/$defs/")
        node = {**root["$defs"][name], **{key: value for key, value in node.items() if key != "$ref"}}
    found: dict[str, Any] = {}
    for key, value in node.items():
        if key in ANNOTATIONS:
            continue
        if key == "properties":
            found[key] = {name: _stripped(root, one) for name, one in value.items()}
        elif key == "required":
            found[key] = sorted(value)
        else:
            found[key] = _stripped(root, value)
    return found
