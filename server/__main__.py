"""Run one front-end: `python -m server`."""

import asyncio
import gc
import signal
import sys
from typing import Final

import structlog
import uvloop
from pydantic import ValidationError

from server import access_log
from server.api_keys import BadKeysFile
from server.app import serve
from server.binding import CannotListen
from server.log_output import OUTPUT
from server.settings import ServerSettings
from server.tls import BadCertificate
from telemetry import logs
from telemetry.refusal import explained

GC_THRESHOLDS: Final = (50_000, 20, 50)
"""A collection for each so many new objects, and so on; a call makes and frees some hundred.
The usual 700 would look through all that is alive for every few calls."""


async def run(settings: ServerSettings) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log = structlog.get_logger()

    def on_ready(address: str) -> None:
        # What is there now stays until the end: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        log.info("serving", address=address)

    try:
        await serve(settings, stop, on_ready=on_ready)
    finally:
        OUTPUT.flush()


def main() -> int:
    """Run the process; return its exit code: 2 if the settings or the address are no good."""
    try:
        settings = ServerSettings()
    except ValidationError as error:
        return complain(explained(error))
    lines = logs.configure("server", level=settings.log_level, log_format=settings.log_format)
    structlog.configure(logger_factory=lambda *_: OUTPUT)
    if lines is not None:
        access_log.write_quickly(lines, OUTPUT.info)
    code = 0
    try:
        uvloop.run(run(settings))
    except* (CannotListen, BadCertificate, BadKeysFile) as group:
        # A group, because the running parts form one, and end it together.
        code = complain("; ".join(map(str, group.exceptions)))
    return code


def complain(text: str) -> int:
    """Tell who starts the process by hand why it did not start; return the exit code."""
    print(f"server: {text}", file=sys.stderr)  # noqa: T201 - for a person, not for the logs
    return 2


if __name__ == "__main__":
    sys.exit(main())
