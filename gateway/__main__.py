"""Run one gateway: `python -m gateway`."""

if __name__ == "__main__":
    from supervision.early_end import end_when_told

    end_when_told()

import signal
import sys
import threading

import structlog
from pydantic import ValidationError

from gateway import open_files
from gateway.app import create_app
from gateway.front_end import connected
from gateway.held_bytes import HeldBytes
from gateway.http_server import CannotListen, HttpServer
from gateway.settings import GatewaySettings
from gateway.stats_hub import StatsHub
from telemetry import logs
from telemetry.metrics import CannotServeMetrics, served
from telemetry.refusal import explained
from telemetry.setting_names import warn_of_unread


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        CannotListen: the address is in use, or not ours.
        OSError: a file of certificates cannot be read.
    """
    log = structlog.get_logger()
    with connected(settings) as upstream:
        stats = StatsHub(upstream, max_listeners=settings.max_stats_listeners)
        held = HeldBytes(settings.max_held_bytes)
        server = HttpServer(settings, create_app(settings, upstream, stats, held))
        log.info("serving", address=server.start(), server_address=settings.server_address)
        stop.wait()
        stats.close()
        server.stop()


def main() -> int:
    """Run the process; return its exit code: 2 if the settings or the address are no good."""
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        return complain(explained(error))
    logs.configure("gateway", level=settings.log_level, log_format=settings.log_format)
    warn_of_unread(GatewaySettings)
    open_files.raise_limit()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with served(settings.metrics_address):
            run(settings, stop)
    except (CannotListen, CannotServeMetrics, OSError) as error:
        return complain(str(error))
    return 0


def complain(text: str) -> int:
    """Tell who starts the process by hand why it did not start; return the exit code."""
    print(f"gateway: {text}", file=sys.stderr)  # noqa: T201 - for a person, not for the logs
    return 2


if __name__ == "__main__":
    sys.exit(main())
