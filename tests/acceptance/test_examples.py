"""The consumers under examples/: four languages, the same topics, the same table."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.example_topics import FIXTURE, ExampleTopics, Line, fixture_lines
from tests.processes import ROOT
from tests.waiting import eventually

EXAMPLES = ROOT / "examples"
EXPECTED = (FIXTURE / "expected.txt").read_bytes()
MOST_LINES = 110
GAP = "gap: user 0192d3c8-0000-7000-8000-000000000009 goes from version 2 to 5"
# what is passed over, and told: a consumer that has told it has seen all that stands before it in its partition
SENTINEL: Line = {"topic": "events", "key": None, "headers": {}, "value": "seen?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """`build` makes what `command` runs, both in the example's folder, with the programs that it `needs`."""

    source: str
    command: tuple[str, ...]
    build: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return (EXAMPLES / self.source).parent


PYTHON = Example(source="python/consumer.py", command=(sys.executable, "consumer.py"))
GO = Example(
    source="go/main.go",
    build=("go", "build", "-mod=readonly", "-o", "build/consumer", "."),
    command=("build/consumer",),
    needs=("go",),
)
JAVA = Example(
    source="java/Consumer.java",
    build=(
        *("mvn", "--quiet", "--batch-mode", "-Dstyle.color=never", "dependency:copy-dependencies"),
        *("-DincludeScope=runtime", "-DoutputDirectory=build/lib"),
    ),
    command=("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "build/lib/*:.", "Consumer.java"),
    needs=("mvn", "java", "javac"),
)
NODE = Example(
    source="node/consumer.js",
    build=("npm", "ci", "--silent", "--no-audit", "--no-fund"),
    command=("node", "consumer.js"),
    needs=("node", "npm"),
)

every_example = pytest.mark.parametrize(
    "example",
    [
        pytest.param(PYTHON, id="python", marks=pytest.mark.broker),
        pytest.param(GO, id="go", marks=pytest.mark.apache),
        pytest.param(JAVA, id="java", marks=pytest.mark.apache),
        pytest.param(NODE, id="node", marks=pytest.mark.apache),
    ],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    popen: subprocess.Popen[bytes]
    table: Path
    said: Path

    def has_said(self, *needed: str) -> bool:
        assert self.popen.poll() is None, f"ended with {self.popen.returncode}:\n{self.said.read_text()[-4000:]}"
        said = self.said.read_text(encoding="utf-8")
        return all(text in said for text in needed)

    def ended(self) -> bytes:
        """The table; it ended well."""
        assert self.popen.wait(timeout=60) == 0, self.said.read_text()[-4000:]
        return self.table.read_bytes()


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def built() -> set[Example]:
    """Those that were built in this run."""
    return set()


@pytest.fixture
def start(example_topics: ExampleTopics, built: set[Example], tmp_path: Path) -> Iterator[Start]:
    """Build an example, once a run, and start it on this test's topics."""
    processes: list[subprocess.Popen[bytes]] = []

    def started(example: Example, **environment: str) -> Running:
        missing = [program for program in example.needs if shutil.which(program) is None]
        assert not missing, f"{example.source} needs {', '.join(missing)}: .ci/run installs what its machine lacks"
        if example.build and example not in built:
            done = subprocess.run(example.build, cwd=example.folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(example.build)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            built.add(example)
        table, said = tmp_path / "table", tmp_path / "said"
        with table.open("wb") as stdout, said.open("wb") as stderr:
            # a locale that is not UTF-8 must change nothing
            popen = subprocess.Popen(
                example.command,
                cwd=example.folder,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | example_topics.environment() | {"LC_ALL": "C"} | environment,
            )
        processes.append(popen)
        return Running(popen=popen, table=table, said=said)

    yield started
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def is_poison(line: Line) -> bool:
    """What has no envelope, no key or no user of ours."""
    headers = line["headers"]
    if line["key"] is None or "ce_type" not in headers or not headers.get("ce_userversion", "").isdecimal():
        return True
    if line["value"] is None or "Policy" in headers["ce_type"]:
        return False
    try:
        return not orjson.loads(line["value"])["user"]
    except (orjson.JSONDecodeError, TypeError):
        return True


@every_example
@pytest.mark.timeout(300)
def test_an_example_makes_the_table_of_the_fixture_and_tells_what_was_wrong(
    example: Example, example_topics: ExampleTopics, start: Start
) -> None:
    lines = fixture_lines()
    places = example_topics.write(lines)
    poison = [place for line, place in zip(lines, places, strict=True) if is_poison(line)]
    running = start(example, UNTIL_END="1")
    assert running.ended() == EXPECTED
    said = running.said.read_text(encoding="utf-8").splitlines()
    passed_over = [line.removeprefix("passed over ").partition(": ")[0] for line in said if "passed over" in line]
    assert sorted(passed_over) == sorted(poison)
    assert [line for line in said if "gap" in line] == [GAP]
    assert len(said) == len(passed_over) + 1


@every_example
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
def test_an_example_that_follows_prints_its_table_when_it_is_told_to_stop(
    example: Example, number: signal.Signals, example_topics: ExampleTopics, start: Start
) -> None:
    lines = fixture_lines()
    first, last = lines[:-1], lines[-1:]
    example_topics.write(first)
    running = start(example)
    seen = example_topics.write([SENTINEL], partition=3)
    eventually(lambda: running.has_said(GAP, *seen), what="it has read what there was", timeout=60)
    # what comes while it follows, too
    example_topics.write(last)
    seen = [place for partition in range(4) for place in example_topics.write([SENTINEL], partition=partition)]
    eventually(lambda: running.has_said(*seen), what="it has read what came", timeout=60)
    running.popen.send_signal(number)
    assert running.ended() == EXPECTED


@every_example
@pytest.mark.timeout(300)
def test_an_example_that_is_stopped_in_the_middle_has_whole_records(
    example: Example, example_topics: ExampleTopics, start: Start
) -> None:
    last = fixture_lines()[-1]
    user = orjson.loads(last["value"])["user"]

    def version(number: int) -> Line:
        value = {"user": user | {"version": number, "email": f"{number}@example.com", "display_name": None}}
        headers = last["headers"] | {"ce_userversion": str(number)}
        return last | {"headers": headers, "value": orjson.dumps(value).decode()}

    many = 20_000
    flood = [version(number) for number in range(1, many + 1)]
    [seen] = example_topics.write([*flood[:10], SENTINEL], partition=3)[-1:]
    example_topics.write(flood[10:])
    running = start(example)
    eventually(lambda: running.has_said(seen), what="it is under way", timeout=60)
    running.popen.send_signal(signal.SIGTERM)
    user_id, held, status, email, name = running.ended().decode().rstrip("\n").split("\t")
    assert (user_id, status, name) == (user["id"], "active", "\\N")
    assert 10 <= int(held) <= many
    assert email == f"{held}@example.com"


@pytest.mark.parametrize("example", [PYTHON, GO, JAVA, NODE], ids=["python", "go", "java", "node"])
def test_an_example_is_short(example: Example) -> None:
    source = (EXAMPLES / example.source).read_text(encoding="utf-8")
    # of imports a formatter decides how many lines they take
    without_imports = re.sub(r"^(import \((\n.*)*?\n\)\n\n|(import|from) .*\n)", "", source, flags=re.MULTILINE)
    assert len(without_imports.splitlines()) <= MOST_LINES


def test_the_lock_of_the_node_example_names_no_host() -> None:
    assert "://" not in (NODE.folder / "package-lock.json").read_text(encoding="utf-8")


def test_the_fixture_is_what_its_script_makes(tmp_path: Path) -> None:
    made = tmp_path / "records.jsonl"
    subprocess.run(
        [sys.executable, EXAMPLES / "fixture" / "make.py", made], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )
    assert made.read_bytes() == (FIXTURE / "records.jsonl").read_bytes(), (
        "PYTHONPATH=. .venv/bin/python examples/fixture/make.py makes it anew"
    )
