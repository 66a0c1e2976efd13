"""The HTTP server of the page of metrics: whoever connects and says nothing costs little.

The one of `prometheus_client` keeps a thread and a file for each connection until its caller closes
it, and a process whose files are used up can accept no call and start no child.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

SILENT_S: Final = 10.0
"""A caller who sends or takes nothing for so long is cut off: as long as Prometheus waits."""

MOST: Final = 8
"""Connections at a time; one more cuts off the oldest. A Prometheus needs one."""

MOST_THREADS: Final = 2 * MOST
"""With those of connections that were cut off, but still make a page; above that the newest is
closed."""

PAUSE_S: Final = 0.1
"""Before the next try when no connection can be accepted, as files are used up."""


@contextmanager
def listening(host: str, port: int, registry: CollectorRegistry) -> Iterator[int]:
    """Serve the figures while inside; yields the port.

    Args:
        host: name or address.
        port: 0: any free one.
        registry: what is served.

    Raises:
        OSError, OverflowError: the address is in use, not ours, or none.
    """
    with _Server(host, port) as server:
        server.set_app(make_wsgi_app(registry))
        thread = threading.Thread(target=server.serve_forever, name="metrics-page", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Writer(BufferedIOBase):
    """Sends what is written; a caller who takes nothing is one who has gone.

    wsgiref passes over those who have gone, and writes a traceback to stderr of a timeout.
    """

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller

    def write(self, data: Any) -> int:
        try:
            self._caller.sendall(data)
        except TimeoutError as error:
            raise ConnectionAbortedError from error
        return len(data)


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def setup(self) -> None:
        super().setup()
        self.wfile = _Writer(self.connection)

    def handle(self) -> None:
        # Callers who are too slow or have gone are nothing to tell of.
        with suppress(OSError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Log no requests."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self._open: dict[Any, None] = {}
        """In the order in which they came."""

        super().__init__((str(address[0]), port), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            # Who could not be accepted is still there: do not ask for it as fast as one can.
            time.sleep(PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open[request] = None
        # Silence begins anew with each byte, so some slow callers would keep all the places.
        for oldest in list(self._open)[:-MOST]:
            # Its thread closes it, which may be doing so now.
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        if len(self._open) > MOST_THREADS:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)
