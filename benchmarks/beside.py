"""Further processes of a stack: started for one measurement, ended after it."""

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from stack import READY_WITHIN, Stack

from muster.embedded.ports import free_port
from muster.embedded.program import Program, plain_environment
from muster.failures import CannotRun
from muster.readiness import unreadiness

PORTS = {"command_api": "COMMAND_PORT", "query_api": "QUERY_PORT", "projector": "PROJECTOR_PORT"}
RELAY = "relay"


@contextmanager
def beside(stack: Stack, *names: str, settings: Mapping[str, str] | None = None) -> Generator[Stack]:
    """Give the stack with these processes too, when they are ready; "query_api.2" is another one of a kind.

    `relay` is the command line's, which has no port: whoever waits for what it publishes sees that it is there.
    """
    with ExitStack() as started:
        ports, pids = dict(stack.ports), dict(stack.pids)
        for name in names:
            kind = name.partition(".")[0]
            environment = {**plain_environment(), **_environment(stack, kind), **(settings or {})}
            if kind in PORTS:
                ports[name] = free_port(taken=ports.values())
                environment[PORTS[kind]] = str(ports[name])
            program = Program(
                name=name,
                command=[sys.executable, "-P", "-m", *([kind] if kind in PORTS else ["muster", "relay"])],
                environment=environment,
                directory=stack.folder,
                log=stack.folder / f"{name}.log",
            )
            process = program.start()
            started.callback(program.stop, process)
            pids[name] = process.pid
        beginning = time.monotonic()
        for name in names:
            while name in ports and (wrong := unreadiness(f"http://127.0.0.1:{ports[name]}")) is not None:
                if time.monotonic() - beginning > READY_WITHIN:
                    raise CannotRun(f"{name} is not ready after {READY_WITHIN:g} s: {wrong}")
                time.sleep(0.05)
        yield replace(stack, ports=ports, pids=pids)


def _environment(stack: Stack, kind: str) -> Mapping[str, str]:
    return stack.environments["command_api" if kind == RELAY else kind]
