"""Run a front-end: `python -m server`."""

if __name__ == "__main__":
    from supervision.early_end import end_when_told

    end_when_told()

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from typing import Any, Final

import structlog
import uvloop
from pydantic import ValidationError

from server import access_log
from server.api_keys import BadKeysFile
from server.app import serve
from server.binding import CannotListen
from server.log_output import OUTPUT
from server.processes import serve_in_processes
from server.settings import ServerSettings
from server.tls import BadCertificate
from supervision.lifeline import BEAT_S, Lifeline
from supervision.memory import govern_memory
from supervision.stop_requests import StopRequests
from supervision.supervisor import REFUSED
from supervision.taking_turns import take_turns
from telemetry import logs, tracing
from telemetry.refusal import explained
from telemetry.setting_names import warn_of_unread
from telemetry.tracing import CannotTrace

GC_THRESHOLDS: Final = (10_000, 10, 10)
"""A collection for each so many new objects, and so on; a call makes and frees some hundred.
The usual 700 would look through all that is alive for every few calls. Not more seldom, as what
is found may hold large images."""


async def run(settings: ServerSettings, lifeline: Lifeline | None) -> None:
    """Serve until SIGTERM, or until the parent has gone, if there is one.

    A second signal ends the process as it is.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    requests = StopRequests()

    def on_signal() -> None:
        # If there is a parent, that one ends its processes.
        if requests.note() and lifeline is None:
            OUTPUT.flush()
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if lifeline is not None:

        def stop_soon() -> None:
            loop.call_soon_threadsafe(stop.set)

        lifeline.watch(stop_soon)
    log = structlog.get_logger()

    def on_ready(address: str) -> None:
        # What is there now stays until the end: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        log.info("serving", address=address)
        if lifeline is not None:
            lifeline.say_ready()
            beat(lifeline)

    def beat(lifeline: Lifeline) -> None:
        lifeline.beat()
        loop.call_later(BEAT_S, beat, lifeline)

    try:
        await serve(settings, stop, on_ready=on_ready)
    finally:
        OUTPUT.flush()


def main() -> int:
    """Run the process; return its exit code: 2 if the settings or the address are no good."""
    try:
        settings = ServerSettings(**arguments())
    except ValidationError as error:
        return complain(explained(error))
    lifeline = Lifeline.inherited()
    lines = logs.configure(
        "server",
        level=settings.log_level,
        log_format=settings.log_format,
        # So that one can tell the lines of several apart.
        **({} if lifeline is None else {"process_id": str(os.getpid())}),
    )
    structlog.configure(logger_factory=lambda *_: OUTPUT)
    if lines is not None:
        access_log.write_quickly(lines, OUTPUT.info)
    access_log.warn_of_slow(settings.slow_call_s)
    if lifeline is None:
        warn_of_unread(ServerSettings)
    if lifeline is None and settings.processes > 1:
        try:
            return serve_in_processes(settings)
        except CannotListen as error:
            return complain(str(error))
    code = 0
    # Before there are other threads, as those inherit it.
    take_turns()
    govern_memory(keeps_free=True)
    try:
        with tracing.recorded("server", instance=f"{socket.gethostname()}-{os.getpid()}"):
            uvloop.run(run(settings, lifeline))
    except* (CannotListen, CannotTrace, BadCertificate, BadKeysFile) as group:
        # A group, because the running parts form one, and end it together.
        code = complain("; ".join(map(str, group.exceptions)))
    return code


def arguments() -> dict[str, Any]:
    """Return the settings that the command line says."""
    parser = argparse.ArgumentParser("python -m server", description=__doc__)
    parser.add_argument("--processes", metavar="N", help="instead of SERVER_PROCESSES")
    return {name: value for name, value in vars(parser.parse_args()).items() if value is not None}


def complain(text: str) -> int:
    """Tell who starts the process by hand why it did not start; return the exit code."""
    print(f"server: {text}", file=sys.stderr)  # noqa: T201 - for a person, not for the logs
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
