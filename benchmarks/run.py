"""One run of a benchmark: options, the stack, interleaved rounds, the table and the JSON file."""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from figures import Findings, surroundings
from measuring import cores_at_rest
from stack import EVERY, Stack, running_stack

from muster.failures import CannotRun
from muster.supervisor import StopRequested

INTERRUPTED = 130


class Benchmark(Protocol):
    def prepare(self) -> None:
        """Bring the stack to where it is measured."""
        ...

    def measurements(self) -> list[Callable[[], None]]:
        """Those of one round, in order; each keeps what it finds."""
        ...

    def name_ratios(self) -> None:
        """Say what is compared with what."""
        ...


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over these (%(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--folder", type=Path, help="where the stack's temporary folder is made")
    parser.add_argument("--broker", help="what to call the broker of KAFKA_BOOTSTRAP_SERVERS, with its version")


def main(
    title: str,
    parser: argparse.ArgumentParser,
    benchmark_of: Callable[[Stack, argparse.Namespace, Findings], Benchmark],
    *,
    quick: Mapping[str, Any],
    rivals: Callable[[Stack], AbstractContextManager[Stack]] = nullcontext,
    settings_of_all: Mapping[str, str] | None = None,
    processes: Collection[str] = EVERY,
) -> None:
    """Run it on a stack; `rivals` starts what else is measured, and adds it.

    `settings_of_all` and `processes` are those of the stack.
    """
    options, settings = parsed(parser, quick)
    try:
        with (
            running_stack(say=say, parent=options.folder, settings=settings_of_all, processes=processes) as alone,
            rivals(alone) as stack,
        ):
            where = surroundings(stack.database_url, broker=options.broker)
            findings = Findings(title=title, settings=settings, where=where)
            findings.cores_at_rest.update(cores_at_rest(stack))
            findings.remember_memory("at rest", stack.memory())
            run_rounds(benchmark_of(stack, options, findings), options.rounds)
    except CannotRun as error:
        raise SystemExit(f"{title.lower()}: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
    tell(findings, options)


def parsed(parser: argparse.ArgumentParser, quick: Mapping[str, Any]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options, and those of them that a figure depends on."""
    options = parser.parse_args()
    if options.quick:
        vars(options).update({"rounds": 1, "seconds": 2.0, **quick})
    return options, {name: value for name, value in vars(options).items() if name not in {"json", "folder", "broker"}}


def tell(findings: Findings, options: argparse.Namespace) -> None:
    print(findings.table())
    if options.json is not None:
        findings.write(options.json)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_rounds(benchmark: Benchmark, rounds: int) -> None:
    say("preparing")
    benchmark.prepare()
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        measurements = benchmark.measurements()
        # every second round goes backwards: what comes after what is not always the same
        for measure in measurements if number % 2 == 0 else reversed(measurements):
            measure()
    benchmark.name_ratios()
