# noqa: INP001 - a script, run by path
"""Fail when a test was skipped for another reason than that no CI machine could run it, or when none ran."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ALLOWED = "cannot in CI:"

cases = list(ET.parse(Path(sys.argv[1])).getroot().iter("testcase"))  # noqa: S314 - pytest's report of a moment ago
skips = [(case, skip) for case in cases if (skip := case.find("skipped")) is not None]
wrong = [
    f"skipped: {case.get('classname')}::{case.get('name')}: {skip.get('message')}"
    for case, skip in skips
    if skip.get("type") != "pytest.xfail" and not (skip.get("message") or "").startswith(ALLOWED)
]
if wrong:
    sys.exit("\n".join([*wrong, f"{len(wrong)} tests were skipped for a reason that does not begin with {ALLOWED!r}"]))
if len(skips) == len(cases):
    sys.exit("no test ran")
