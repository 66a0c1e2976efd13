"""Several front-end processes behind one address: the system gives each of them some connections.

Each is a front-end of its own, with its own reply streams; the parent serves nothing.
"""

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from server.binding import CannotListen
from server.settings import ServerSettings
from supervision.supervisor import Supervisor
from telemetry import metrics

NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What a bind says on a machine without the version of IP that the address is of."""

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


@contextmanager
def reserved(address: str) -> Iterator[str]:
    """Keep an address for processes that share it, while inside.

    Sockets that share a port do not tell when somebody else has it. So it is first taken
    by one that does not, and only then opened for the others. It never listens, so it gets
    no connections.

    Args:
        address: `host:port`; port 0: any free one.

    Yields:
        The address with the real port.

    Raises:
        CannotListen: the address is in use, or not ours.
    """
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        number = int(port)
        try:
            for family, *_, found in socket.getaddrinfo(
                host.strip("[]"), number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                number = _hold(holder, str(found[0]), number) or number
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {address}: the address is in use or not available"
            ) from error
        if number == 0:
            raise CannotListen(f"cannot listen on {address}: the address is not available")
        yield f"{host}:{number}"


def _hold(holder: socket.socket, host: str, port: int) -> int:
    """Take one address; return its port, or 0 if the machine has no such addresses."""
    # Else the connections of a server that has just ended would keep the address for a minute.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
    except OSError as error:
        if error.errno in NOT_HERE:
            return 0
        raise
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return int(holder.getsockname()[1])
