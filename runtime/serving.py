import gc
import signal
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from runtime import failpoints
from runtime.logs import configure_logging, logger
from runtime.settings import BadSettings, Settings, settings_from_environment

log = logger(__name__)


def run_process(
    name: str,
    create_app: Callable[[Settings], FastAPI],
    port: Callable[[Settings], int],
    check: Callable[[Settings], None],
) -> None:
    """Serve one process's app until SIGTERM or SIGINT; accepted requests are answered first.

    `check` raises BadSettings for what does not fit the deployment.
    """
    try:
        settings = settings_from_environment()
        failpoints.arm(settings.failpoints)
    except (BadSettings, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 - there is no log before there are settings
        raise SystemExit(2) from None
    configure_logging(name, settings.log_level)
    try:
        check(settings)
        app = create_app(settings)
    except BadSettings as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 - as above
        raise SystemExit(2) from None
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=port(settings),
            loop="uvloop",
            http="httptools",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # who may say on whose behalf a request comes is told, never assumed: uvicorn would trust this machine
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=[str(network) for network in settings.proxies],
            timeout_graceful_shutdown=settings.shutdown_timeout,
        )
    )
    app.state.stopping = lambda: server.should_exit
    # uvicorn raises the signal again once it has stopped: a stop that was asked for is a success
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _already_handled)
    settle_memory()
    server.run()
    if not server.started:
        raise SystemExit(1)


def settle_memory() -> None:
    """Spare what start-up made, which lives as long as the process, from being walked by each collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _already_handled(_: int, __: object) -> None:
    pass
