"""The relay, or the integrator, without a command API around it: follows a log to the end that it had.

A process of its own: reads a Following as JSON from stdin, writes a Followed to stdout.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import uvloop
from prometheus_client import REGISTRY

from events.keyring import open_keyring
from events.leadership import Leader
from events.proofs.integrator import Integrator
from events.relay import Relay
from runtime.settings import settings_from_environment

# to look costs about as much as to relay five events
LOOK_EVERY = 0.05
REACHED = {"relay": "muster_relay_position", "integrator": "muster_tree_size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """`environment` is that of the process, `end` the position that is to be reached."""

    environment: Mapping[str, str]
    leader: Literal["relay", "integrator"]
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """`seconds` and `cpu`, processor time, from taking up the work to the end."""

    seconds: float
    cpu: float


async def followed(asked: Following) -> Followed:
    settings = settings_from_environment(**{name.lower(): value for name, value in asked.environment.items()})
    keyring = open_keyring(settings)
    leader: Leader = (Relay if asked.leader == "relay" else Integrator)(settings, keyring)
    running = asyncio.create_task(leader.run())
    while leader.state != "leading":  # noqa: ASYNC110 - it tells no event
        await asyncio.sleep(LOOK_EVERY)
    cpu, began = time.process_time(), time.perf_counter()
    while (REGISTRY.get_sample_value(REACHED[asked.leader]) or 0) < asked.end:  # noqa: ASYNC110 - as above
        await asyncio.sleep(LOOK_EVERY)
    found = Followed(seconds=time.perf_counter() - began, cpu=time.process_time() - cpu)
    leader.stop()
    await running
    return found


def main() -> None:
    asked = Following(**json.load(sys.stdin))
    # as in runtime.serving
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    json.dump(asdict(uvloop.run(followed(asked))), sys.stdout)


if __name__ == "__main__":
    main()
