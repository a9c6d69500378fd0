"""How long a refused login takes for accounts that exist and for accounts that do not: nobody is to learn which do.

    python benchmarks/login_timing.py [--quick] [--json FILE]

One request at a time over one connection to one command API with argon2 as in production. Every password is wrong. The
two kinds come in blocks of four, known unknown unknown known or the other way round: a drift of the machine hits both
alike. No account is tried twice before the counts of guesses are cleared, so that both kinds are always first tries.
"""

import argparse
import http.client
import json
import random
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode

from apis import COMMAND, STANDARD, Apis, running_apis
from load import quantile
from run import INTERRUPTED, say

from muster.failures import CannotRun
from muster.supervisor import StopRequested

ACCOUNTS = 100
FIRST_UNKNOWN = 100_000
# the first requests after the counts are cleared make new plans and new files
WARM_UP = 3
RESAMPLES = 2000
# of the resamples: the bounds of a 95 % confidence interval
LEAST, MOST = 0.025, 0.975
# beyond the interval, what a remote guesser could make something of
NOTABLE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Two logins of each kind, in milliseconds."""

    known: tuple[float, float]
    unknown: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Milliseconds; `least` to `most` is a 95 % confidence interval."""

    of: str
    value: float
    least: float
    most: float


class Guesser:
    def __init__(self, apis: Apis) -> None:
        self._apis = apis
        self._connection = http.client.HTTPConnection("127.0.0.1", apis.ports[COMMAND], timeout=30)
        self._unknown = FIRST_UNKNOWN

    def block(self, accounts: list[str]) -> Block:
        """Takes two of `accounts`."""
        kinds = [True, False, False, True]
        if random.random() < 0.5:
            kinds = [not known for known in kinds]
        taken: dict[bool, list[float]] = {True: [], False: []}
        for known in kinds:
            taken[known].append(self.login(accounts.pop() if known else self._nobody()))
        return Block(known=(taken[True][0], taken[True][1]), unknown=(taken[False][0], taken[False][1]))

    def clear(self) -> None:
        self._apis.forget_guesses()
        for _ in range(WARM_UP):
            self.login(self._nobody())

    def login(self, email: str) -> float:
        body = urlencode({"username": email, "password": secrets.token_hex(8)}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        began = time.perf_counter()
        self._connection.request("POST", "/login", body, headers)
        answer = self._connection.getresponse()
        answer.read()
        took = time.perf_counter() - began
        assert answer.status == 401, answer.status
        return took * 1000

    def _nobody(self) -> str:
        self._unknown += 1
        return email_of(self._unknown)


def email_of(number: int) -> str:
    """Of the same length for all."""
    return f"somebody-{number:09d}@example.com"


def measured(apis: Apis, samples: int) -> list[Block]:
    guesser = Guesser(apis)
    blocks: list[Block] = []
    while len(blocks) * 2 < samples:
        guesser.clear()
        accounts = [email_of(number) for number in range(ACCOUNTS)]
        random.shuffle(accounts)
        while accounts and len(blocks) * 2 < samples:
            blocks.append(guesser.block(accounts))
    return blocks


def differences(blocks: Sequence[Block]) -> list[Difference]:
    return [
        _bootstrapped("medians", blocks, lambda chosen: _apart(chosen, 0.5)),
        _bootstrapped("10th percentiles", blocks, lambda chosen: _apart(chosen, 0.1)),
        _bootstrapped("blocks, median", blocks, lambda chosen: statistics.median(map(_within, chosen))),
        # nothing differs between these: how large a difference of medians is by chance
        _bootstrapped("medians, known and known", blocks, _chance),
    ]


def _apart(blocks: Sequence[Block], share: float) -> float:
    known = sorted(value for block in blocks for value in block.known)
    unknown = sorted(value for block in blocks for value in block.unknown)
    return quantile(known, share) - quantile(unknown, share)


def _within(block: Block) -> float:
    return (sum(block.known) - sum(block.unknown)) / 2


def _chance(blocks: Sequence[Block]) -> float:
    halves = [sorted(block.known[one] for block in blocks) for one in (0, 1)]
    return quantile(halves[0], 0.5) - quantile(halves[1], 0.5)


def _bootstrapped(of: str, blocks: Sequence[Block], statistic: Callable[[Sequence[Block]], float]) -> Difference:
    found = sorted(statistic(random.choices(blocks, k=len(blocks))) for _ in range(RESAMPLES))
    return Difference(of=of, value=statistic(blocks), least=quantile(found, LEAST), most=quantile(found, MOST))


def table(blocks: Sequence[Block], found: Sequence[Difference]) -> str:
    known = sorted(value for block in blocks for value in block.known)
    unknown = sorted(value for block in blocks for value in block.unknown)
    lines = [f"{'refused logins, ms':34}{'n':>8}{'p10':>10}{'median':>10}{'p90':>10}"]
    for name, values in (("account exists", known), ("account does not exist", unknown)):
        cells = "".join(f"{quantile(values, share):>10.3f}" for share in (0.1, 0.5, 0.9))
        lines.append(f"{name:34}{len(values):>8}{cells}")
    scale = statistics.median(unknown)
    lines += [
        "",
        f"{'difference (exists - does not), ms':34}{'':>8}{'value':>10}{'95 % confidence':>22}{'of median':>12}",
    ]
    for one in found:
        interval = f"{one.least:+.3f} to {one.most:+.3f}"
        lines.append(f"{one.of:42}{one.value:>+10.3f}{interval:>22}{one.value / scale:>+12.2%}")
    lines += ["", verdict(found)]
    return "\n".join(lines)


def verdict(found: Sequence[Difference]) -> str:
    medians = found[0]
    if medians.least > NOTABLE or medians.most < -NOTABLE:
        return f"The two kinds DIFFER, by more than {NOTABLE} ms."
    if medians.least <= 0 <= medians.most:
        return "No difference is shown: the interval holds 0."
    return f"A difference is shown; that it is more than {NOTABLE} ms is not."


def main() -> None:
    parser = argparse.ArgumentParser(description="What a refused login's time tells of the account.")
    parser.add_argument("--samples", type=int, default=2000, help="of each kind (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few samples, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    options = parser.parse_args()
    samples = 100 if options.quick else options.samples
    try:
        with running_apis(
            say=say, commands={COMMAND: STANDARD[COMMAND]}, guesses_per_account=100, guesses_per_address=1_000_000
        ) as apis:
            say(f"making {ACCOUNTS} accounts")
            apis.make_accounts([email_of(number) for number in range(ACCOUNTS)])
            say(f"{samples} logins of each kind")
            blocks = measured(apis, samples)
    except CannotRun as error:
        raise SystemExit(f"login timing: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
    found = differences(blocks)
    print(table(blocks, found))
    if options.json is not None:
        document = {"blocks": [asdict(block) for block in blocks], "differences": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
