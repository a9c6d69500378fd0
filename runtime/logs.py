import logging
import sys
from typing import Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from runtime.correlation import current


def configure_logging(process: str, level: Literal["debug", "info", "warning", "error"]) -> None:
    """Write one JSON object a line to stdout, for this code and for libraries alike.

    Every line has timestamp, level, process and event; within a request or an event also request_id and
    correlation_id.
    """

    def add_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    shared: list[structlog.typing.Processor] = [
        add_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_process,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_dumps_text),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # aiokafka logs every refused connection of a broker that is away; the owner of the client says it once
    logging.getLogger("aiokafka").setLevel(max(logging.ERROR, root.level))


def add_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The processor that names the request or the event that a line is about."""
    if (found := current.get()) is not None:
        event.setdefault("request_id", found.request_id)
        event.setdefault("correlation_id", found.correlation_id)
    return event


def logger(name: str) -> FilteringBoundLogger:
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


def _dumps_text(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()
