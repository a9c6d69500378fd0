"""What it costs to tell who calls: GET by id with a token that is remembered, with a new one each time, with no check.

    python benchmarks/token_check.py [--quick] [--json FILE]

Interleaved rounds over HTTP against two query APIs, one as it is and one whose gate lets everybody through, the rest
of which is the same; and the gatekeeper alone, in this process.
"""

import argparse
import asyncio
import gc
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from apis import QUERY, STANDARD, Apis, run_client, running_apis
from connection import request_template
from fastapi import FastAPI
from figures import Figure, Findings, Spread, surroundings
from load import Load, Loaded
from run import INTERRUPTED, say
from seed import seed_read_model

from events.partitioning import check_partitions_setting
from identity.access_tokens import AccessTokens, Caller
from identity.caller import GATE
from identity.gatekeeper import REMEMBERED, Gatekeeper
from identity.roles import ROLES
from identity.trust import Trust
from muster.failures import CannotRun
from muster.supervisor import StopRequested
from query_api.app import create_app
from runtime.database import Session
from runtime.ids import new_id
from runtime.serving import run_process
from runtime.settings import Settings

UNGATED_API: Final = f"{QUERY}.ungated"
UNGATED: Final = "no check"
REPEATED: Final = "a remembered token"
FRESH: Final = "a new token each time"
USERS = 1000
CONNECTIONS = 32
# more GETs than one process answers
MOST_A_SECOND = 8000
# of the gatekeeper alone: calls of one measurement
CALLS = 2000


def ungated(settings: Settings) -> FastAPI:
    """The query API, for whoever asks."""
    app = create_app(settings)
    anyone = Caller(
        subject=str(new_id()),
        kind="user",
        scopes=ROLES["admin"],
        session=str(new_id()),
        reflects=0,
        expires_at=math.inf,
        kid="",
    )

    async def admit() -> Caller:
        return anyone

    app.dependency_overrides[GATE] = admit
    return app


class TokenCheck:
    def __init__(self, apis: Apis, findings: Findings, *, seconds: float) -> None:
        self._apis = apis
        self._findings = findings
        self._seconds = seconds
        self._user = ""
        self._written = itertools.count()

    def prepare(self) -> None:
        self._user = seed_read_model(self._apis.database_url, USERS)[0]
        for measure in self.measurements():
            measure()
        self._findings.rounds.clear()

    def measurements(self) -> Sequence[Callable[[], None]]:
        return (
            lambda: self._measure(UNGATED, tokens=1),
            lambda: self._measure(REPEATED, tokens=1),
            lambda: self._measure(FRESH, tokens=int(MOST_A_SECOND * self._seconds)),
        )

    def _measure(self, name: str, *, tokens: int) -> None:
        # the load takes a line for each request, usually a user's id; here the user is always the same
        file = self._apis.folder / f"tokens-{next(self._written)}"
        file.write_text("\n".join(self._apis.token() for _ in range(tokens)))
        headers = {"authorization": "Bearer %(id)s"}
        load = Load(
            port=self._apis.ports[UNGATED_API if name == UNGATED else QUERY],
            template=request_template("GET", f"/users/{self._user}", headers=headers),
            expected=200,
            connections=CONNECTIONS,
            seconds=self._seconds,
            warm_up=0.0,
            ids_file=str(file),
        )
        loaded = Loaded(**run_client("load.py", asdict(load)))
        file.unlink()
        assert not loaded.refused, loaded.refused
        assert tokens == 1 or loaded.count <= tokens, "tokens came twice"
        self._findings.add(name, Figure(rate=loaded.rate, p50=loaded.p50, p99=loaded.p99, cores={"client": loaded.cpu}))


async def gatekeeping(apis: Apis, rounds: int) -> dict[str, Spread]:
    """Microseconds a call, beside a coroutine that does nothing."""
    trust = Trust(Session(apis.database_url, application="benchmark", timeout=5), keep=60)
    gatekeeper = Gatekeeper(AccessTokens(apis.settings), trust)

    async def nothing(_: str) -> None:
        pass

    found: dict[str, list[float]] = {"nothing": [], REPEATED: [], FRESH: []}
    assert rounds * CALLS < REMEMBERED
    for _ in range(rounds):
        tokens = [apis.token() for _ in range(CALLS)]
        for name, call, asked in (
            ("nothing", nothing, tokens),
            (FRESH, gatekeeper.admit, tokens),
            (REPEATED, gatekeeper.admit, tokens[:1] * CALLS),
        ):
            # known to be fresh for longer than the calls take
            await trust.look()
            found[name].append(await _each(call, asked))
    await trust.close()
    return {name: Spread.of(values) for name, values in found.items()}


async def _each(call: Callable[[str], Awaitable[object]], tokens: Sequence[str]) -> float:
    gc.collect()
    began = time.perf_counter()
    for token in tokens:
        await call(token)
    return (time.perf_counter() - began) / len(tokens) * 1e6


def table(findings: Findings, alone: dict[str, Spread]) -> str:
    lines = [findings.table(), f"{'the gatekeeper alone, us a call':34}{'median':>11}{'least - most':>18}"]
    for name, spread in alone.items():
        interval = f"{spread.least:.2f} - {spread.most:.2f}"
        lines.append(f"{name:34}{spread.median:>11.2f}{interval:>18}")
    lines.append("")
    for name in (REPEATED, FRESH):
        whole = statistics.median([1e6 / figure.rate for figure in findings.rounds[name]])
        share = alone[name].median / whole
        lines.append(f"{name}: the gatekeeper takes {share:.1%} of the {whole:.0f} us that go by for each GET")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to verify access tokens.")
    parser.add_argument("--rounds", type=int, default=5, help="medians are taken over these (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    commands = {QUERY: STANDARD[QUERY], UNGATED_API: (sys.executable, str(Path(__file__).resolve()), UNGATED_API)}
    try:
        with running_apis(say=say, commands=commands, log_level="warning") as apis:
            where = surroundings(apis.database_url, broker="none")
            findings = Findings(title="Token check", settings=vars(options), where=where)
            findings.ratios += [(REPEATED, UNGATED), (FRESH, UNGATED), (FRESH, REPEATED)]
            benchmark = TokenCheck(apis, findings, seconds=options.seconds)
            say("preparing")
            benchmark.prepare()
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                measurements = benchmark.measurements()
                for measure in measurements if number % 2 == 0 else reversed(measurements):
                    measure()
            alone = asyncio.run(gatekeeping(apis, max(3, options.rounds)))
    except CannotRun as error:
        raise SystemExit(f"token check: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
    print(table(findings, alone))
    if options.json is not None:
        findings.settings = {}
        findings.write(options.json)
        document = json.loads(options.json.read_text()) | {
            "gatekeeper_us": {name: asdict(spread) for name, spread in alone.items()}
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == [UNGATED_API]:
        run_process(UNGATED_API, ungated, lambda settings: settings.query_port, check_partitions_setting)
    else:
        main()
