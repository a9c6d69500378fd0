"""`python -m events.contract` writes the schemas of the types; with --check it says what is wrong with them."""

import sys

from events.contract.gate import problems, write

found = problems() if sys.argv[1:] == ["--check"] else write()
for problem in found:
    print(problem, file=sys.stderr)  # noqa: T201 - that is what it is for
sys.exit(1 if found else 0)
