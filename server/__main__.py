"""Run one front-end: `python -m server`."""

import asyncio
import signal
import sys

import structlog
import uvloop
from pydantic import ValidationError

from server.app import serve
from server.grpc_server import CannotListen
from server.settings import ServerSettings
from telemetry import logs


async def run(settings: ServerSettings) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log = structlog.get_logger()
    await serve(settings, stop, on_ready=lambda address: log.info("serving", address=address))


def main() -> int:
    """Run the process; return its exit code."""
    try:
        settings = ServerSettings()
        logs.configure("server", level=settings.log_level, log_format=settings.log_format)
        uvloop.run(run(settings))
    except (ValidationError, CannotListen) as error:
        print(f"server: {error}", file=sys.stderr)  # noqa: T201 - for who starts it by hand
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
