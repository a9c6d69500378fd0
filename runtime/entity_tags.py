import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

OPAQUE: Final = r'"[\x21\x23-\x7e\x80-\xff]*"'
ONE: Final = re.compile(rf"\s*(W/)?({OPAQUE})\s*")
LIST: Final = re.compile(rf"[\s,]*(?:(?:W/)?{OPAQUE}\s*(?:,[\s,]*|$))+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityTag:
    """`opaque` is what stands between the quotes."""

    opaque: str
    weak: bool = False


def entity_tags(lines: Sequence[str]) -> list[EntityTag] | None:
    """The tags of an If-Match or If-None-Match header's lines (RFC 9110, section 8.8.3).

    A tag may hold a comma. Raises ValueError for anything else than a list of tags; `*` is None.
    """
    text = ", ".join(lines)
    if text.strip() == "*":
        return None
    if LIST.fullmatch(text) is None:
        raise ValueError("not a list of entity tags")
    return [EntityTag(opaque=opaque[1:-1], weak=bool(weak)) for weak, opaque in ONE.findall(text)]
