"""The manifest of an export: what it says, and whether its files are what it says of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import orjson

from muster.failures import CannotRun

FORMAT: Final = "muster-export/1"
MANIFEST: Final = "manifest.json"


class NoExport(Exception):
    """What a folder holds is no export of events as they are stored."""


def manifest_of(folder: Path) -> dict[str, Any]:
    """Raises NoExport, and CannotRun for a folder without one."""
    file = folder / MANIFEST
    try:
        manifest: object = orjson.loads(file.read_bytes())
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror}: without it an export is not whole") from None
    except orjson.JSONDecodeError:
        raise NoExport(f"{file} is not JSON") from None
    found = cast("dict[str, Any]", manifest) if isinstance(manifest, dict) else {}
    if found.get("format") != FORMAT:
        raise NoExport(f"{file} is of the format {found.get('format')!r}, not {FORMAT!r}")
    if found.get("contents") != "log":
        raise NoExport(
            "what was opened does not become a log again, and proves nothing: export with --format jsonl,"
            " without --opened"
        )
    return found


def digest_of(file: Path) -> str:
    """SHA-256, in hexadecimal digits. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_as_told(folder: Path, file: Mapping[str, Any]) -> bool:
    """Whether a file is what the manifest says of it. Raises OSError."""
    return digest_of(folder / file["name"]) == file["sha256"]
