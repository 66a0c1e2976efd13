"""Log lines: one event and its fields, as JSON or for a person."""

import logging
import sys
from typing import Any, Literal

import structlog

from telemetry.json_lines import JsonLines
from telemetry.log_stream import ForgivingStream
from telemetry.terminal_text import fields_made_safe, write_traceback

LogFormat = Literal["auto", "json", "console"]
"""`auto`: for a person on a terminal, JSON elsewhere."""


def configure(
    service: str, *, level: str = "INFO", log_format: LogFormat = "auto", **fields: str
) -> JsonLines | None:
    """Send the log lines of this process to standard error.

    Args:
        service: value of the field `service` in every line.
        level: least severe level that is written, such as `INFO`.
        log_format: how a line looks.
        fields: more of what every line has.

    Returns:
        What makes lines of level `INFO` more quickly, for those of each call; None if they
        are for a person, or not written.
    """
    stream = ForgivingStream(sys.stderr)
    is_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        # The default shows local variables wherever `rich` is installed: keys, URLs, images.
        [fields_made_safe, structlog.dev.ConsoleRenderer(exception_formatter=write_traceback)]
        if is_console
        else [structlog.processors.JSONRenderer()]
    )

    def name_service(
        _logger: Any, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        # Not a context variable: new threads begin without those.
        return {"service": service, **fields, **event}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if not is_console:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        # The other one writes the end of a line apart, and other processes may come between.
        logger_factory=lambda *_: structlog.WriteLogger(stream),  # type: ignore[arg-type] # writes and flushes
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard module; their lines get the same shape.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    is_info_written = logging.getLevelName(level) <= logging.INFO
    if is_console or not is_info_written:
        return None
    return JsonLines({"service": service, **fields})
