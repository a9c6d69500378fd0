"""All that speed is judged by: runs the scripts one after the other and writes results.md of what they found.

    python benchmarks/all.py [--quick] [--rounds 3] [--seconds 8] [NAME...]

With names, those alone are run, and the others' figures stay what they were: each script's are kept in
benchmarks/.results. Each gets an Apache Kafka of its own, or the embedded broker where that cannot run.
KAFKA_BOOTSTRAP_SERVERS, and BROKER, what to call it, name one to use instead.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apache_kafka import Kafka, apache_kafka
from results import results
from targets import SECTIONS

from muster.supervisor import StopRequested, stop_requests

FOLDER = Path(__file__).parent
KEPT = FOLDER / ".results"
PAGE = FOLDER / "results.md"
INTERRUPTED = 130


SCRIPTS = (
    "write_path",
    "log_path",
    "read_path",
    "projecting",
    "relaying",
    "freshness_at_rate",
    "growth",
    "steady",
    "scaling",
)


def main() -> int:
    """Answers 1 when a script failed; the others are run nevertheless."""
    options = _options()
    KEPT.mkdir(exist_ok=True)
    failed: list[str] = []
    for script in SCRIPTS:
        if script in options.names or not options.names:
            _say(f"== {script}")
            if not _run(script, options):
                failed.append(script)
            # whoever interrupts the rest has what was found so far
            PAGE.write_text(results(_documents(), SECTIONS))
    _say(f"{PAGE} is written")
    if failed:
        _say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}; without any, all")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works")
    parser.add_argument("--rounds", type=int, help="medians are taken over these")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--embedded", action="store_true", help="the embedded broker, whatever else is there")
    parser.add_argument("--folder", type=Path, help="where temporary folders are made")
    options = parser.parse_args()
    unknown = set(options.names) - set(SCRIPTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    return options


def _run(script: str, options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=options.folder) as folder:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if servers is not None:
            named = Kafka(bootstrap_servers=servers, name=os.environ.get("BROKER", f"the one at {servers}"))
            return _run_beside(named, script, options)
        if options.embedded:
            return _run_beside(None, script, options)
        with apache_kafka(Path(folder), say=_say) as kafka:
            return _run_beside(kafka, script, options)


def _run_beside(kafka: Kafka | None, script: str, options: argparse.Namespace) -> bool:
    arguments = ["--quick"] if options.quick else []
    for name in ("rounds", "seconds"):
        if getattr(options, name) is not None:
            arguments += [f"--{name}", f"{getattr(options, name):g}"]
    command = ["python", f"benchmarks/{script}.py", *arguments]
    found = KEPT / f"{script}.json"
    added = [
        "--json",
        str(found.with_suffix(".new")),
        *([] if options.folder is None else ["--folder", str(options.folder)]),
    ]
    environment = dict(os.environ)
    if kafka is not None:
        environment["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
        added += ["--broker", kafka.name]
    process = subprocess.Popen([sys.executable, str(FOLDER / f"{script}.py"), *arguments, *added], env=environment)
    try:
        if process.wait() != 0:
            return False
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    _keep(found, [f"make bench ARGS={shlex.quote(' '.join([script, *arguments]))}", shlex.join(command)])
    return True


def _keep(found: Path, commands: Sequence[str]) -> None:
    """Put what a script has written in the place of what it found before, with how it was run."""
    new = found.with_suffix(".new")
    document: dict[str, Any] = json.loads(new.read_text())
    found.write_text(json.dumps({**document, "commands": commands}, indent=2) + "\n")
    new.unlink()


def _documents() -> Mapping[str, Any]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(KEPT.glob("*.json"))}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        with stop_requests():
            sys.exit(main())
    except StopRequested:
        sys.exit(INTERRUPTED)
