"""Logging: a fixed event, values as keys; JSON lines on stdout, readable on a terminal.

    configure("edge", site="s1", node="press-4")     # once, at the start of the process
    log = get_logger()                               # in any module, before or after
    log.info("round.closed", round=7, nodes=12, took_s=3.2)

What is given to `configure` stands in every line, in every thread. Info: the plant changed state. Warning:
degraded, healing itself. Error: a person must act. The standard library's log (asyncio, paho) joins from
warning upwards. Modules take `get_logger` from here rather than import structlog.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]

# structlog loads rich and Pygments for coloured tracebacks when they are there: 6 MB and 50 ms that an edge
# node should not pay. Hidden while it is imported, they stay out, and tracebacks are plain.
if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]

import structlog  # noqa: E402
from structlog.typing import EventDict, Processor, WrappedLogger  # noqa: E402

get_logger = structlog.get_logger
"""A logger that reads the configuration in force when it is first used."""


def configure(process: str, *, level: Level = "info", stream: TextIO | None = None, **bound: object) -> None:
    """Log this process to `stream` (default stdout); `bound` stands in every line. The last call counts."""
    stream = sys.stdout if stream is None else stream

    def identify(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {"process": process, **bound, **event}

    shared: list[Processor] = [
        identify,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if stream.isatty():
        render: list[Processor] = [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, pad_event=28)
        ]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _name(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    return {**event, "logger": record.name} if record is not None else event


def _dumps(event: EventDict, **options: Any) -> str:
    try:
        return json.dumps(event, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:  # NaN or infinity is not JSON: say it in words rather than break the reader of the line
        return json.dumps({key: _finite(value) for key, value in event.items()}, ensure_ascii=False, **options)


def _finite(value: object) -> object:
    return repr(value) if isinstance(value, float) and value - value != 0 else _tree(value)


def _tree(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
