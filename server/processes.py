"""Several front-end processes behind one address: the system gives each of them some connections.

Each is a front-end of its own, with its own reply streams; the parent serves nothing.
"""

import os
import signal
import sys
from contextlib import ExitStack
from typing import Final

from server.binding import CannotListen, reserved
from server.settings import ServerSettings
from supervision.supervisor import Supervisor
from telemetry import metrics

STOP_MARGIN_S: Final = 10.0
"""How much longer than `SERVER_DRAIN_S` a process may take to stop: the last cancels are sent."""


def serve_in_processes(settings: ServerSettings) -> int:
    """Serve in several processes until SIGTERM; return the exit code.

    Raises:
        CannotListen: an address is in use, or not ours.
    """
    with ExitStack() as stack:
        environment = {
            **os.environ,
            "SERVER_PROCESSES": str(settings.processes),
            "SERVER_ADDRESS": stack.enter_context(reserved(settings.address)),
            # Only one process can have the address: theirs count for the sums.
            "SERVER_METRICS_ADDRESS": "",
        }
        if settings.health_address:
            health_address = stack.enter_context(reserved(settings.health_address))
            environment["SERVER_HEALTH_ADDRESS"] = health_address
        try:
            stack.enter_context(metrics.served_for(environment, settings.metrics_address))
        except metrics.CannotServeMetrics as error:
            raise CannotListen(str(error)) from error
        supervisor = Supervisor(
            [sys.executable, "-m", "server"],
            settings.processes,
            environment,
            start_timeout_s=settings.start_timeout_s,
            stop_timeout_s=settings.drain_s + STOP_MARGIN_S,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        return supervisor.run()
