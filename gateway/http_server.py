"""The HTTP server under the application: cheroot, with what it leaves open decided here.

A thread per request, bodies handed over while they arrive, one process that does not fork:
docs/adr/0020-wsgi-server.md says why.
"""

import logging
import math
import threading
import time
from contextlib import suppress
from typing import Any, Final

import structlog
from cheroot import wsgi

from gateway import open_files
from gateway.chunked_body import ChunkedBody
from gateway.connection import ENVIRON_KEY, SocketConnection
from gateway.every_address import listening
from gateway.http_connection import Connection
from gateway.open_connections import OpenConnections
from gateway.request_threads import RequestThreads
from gateway.settings import MIB, GatewaySettings

log = structlog.get_logger(__name__)

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_IDLE_CONNECTIONS: Final = 1000
"""At most, and never more than half of the files: others want to connect, too."""

BACKLOG: Final = 128
PIECE_BYTES: Final = 64 * 1024

LINGER_BYTES: Final = 64 * MIB
LINGER_S: Final = 2.0
"""How much of a body that nobody wants is read and thrown away, so that a caller who is
still sending comes to read the answer: without that the connection would be reset."""


class CannotListen(Exception):
    """The address is in use, or not ours."""


class HttpServer:
    """Serves an application on one address.

    Args:
        settings: the address and the limits.
        application: a WSGI application.
    """

    def __init__(self, settings: GatewaySettings, application: Any) -> None:
        self._server = _Server(
            settings.host_and_port,
            application,
            request_queue_size=BACKLOG,
            timeout=settings.client_timeout_s,  # type: ignore[arg-type] # a socket's: any number
            shutdown_timeout=settings.drain_s,  # type: ignore[arg-type]
            server_name="despacho",
        )
        self._server.requests = RequestThreads(
            self._server, min=settings.threads, max=settings.threads
        )
        self._server.gateway = _Gateway
        self._server.max_request_header_size = MAX_HEADER_BYTES
        self._server.keep_alive_conn_limit = min(MAX_IDLE_CONNECTIONS, open_files.limit() // 2)
        self._thread = threading.Thread(target=self._server.serve, name="http")

    def start(self) -> str:
        """Begin to serve; return the address with the real port.

        Raises:
            CannotListen: the address is in use, or not ours.
        """
        self._server.prepare()
        self._thread.start()
        host, port = self._server.bind_addr
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def stop(self) -> None:
        """Accept nothing more, let requests in progress end for a while, and cut off the rest."""
        self._server.stop()
        self._thread.join()


class _Server(wsgi.Server):
    """cheroot's, with its complaints in our log."""

    ConnectionClass = Connection

    def prepare(self) -> None:
        """Listen, and begin to look after connections."""
        super().prepare()
        # cheroot asks nobody whose it takes. There is none in it yet.
        self._connections.close()  # type: ignore[has-type] # not in its stubs
        self._connections = OpenConnections(self)

    def process_conn(self, conn: Connection) -> None:
        """Give a connection that has a request to a thread, as soon as one is free."""
        conn.arrived_s = time.monotonic()
        super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - as cheroot calls it
        """Log what went wrong below the application."""
        log.log(level, "http server", message=msg, exc_info=traceback)

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002 - as cheroot calls it
        """Listen at all addresses of the name, whichever of them cheroot begins with."""
        del family, type, proto
        host, port = self.bind_addr
        try:
            self.socket = listening(host, port, self.timeout)
        except OSError as error:
            # cheroot would try once more for each other address.
            raise CannotListen(f"cannot listen at {host}: {error}") from error
        self.bind_addr = host, self.socket.getsockname()[1]
        return self.socket


class _Gateway(wsgi.Gateway_10):
    """Between cheroot and the application."""

    def get_environ(self) -> Any:
        """Return what the application is told of the request."""
        request = self.req
        if request.chunked_read:
            # cheroot's own would take a chunk of any size into memory.
            request.rfile = ChunkedBody(request.conn.rfile)
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        # The head is complete. Whoever reads the body knows how long it may take.
        request.conn.paced.ends_s = math.inf
        environ[ENVIRON_KEY] = SocketConnection(request.conn.paced, request.conn.arrived_s)
        return environ

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """Begin the response."""
        if self._has_unread_body():
            # Otherwise cheroot would take the rest into memory.
            self.req.close_connection = True
        return super().start_response(status, headers, exc_info)

    def respond(self) -> None:
        """Answer the request."""
        super().respond()
        if self.req.close_connection and self._has_unread_body():
            self._linger()

    def _has_unread_body(self) -> bool:
        body = self.req.rfile
        if isinstance(body, ChunkedBody):
            return not body.has_ended
        return bool(body.remaining != 0)

    def _linger(self) -> None:
        left_bytes = LINGER_BYTES
        self.req.conn.paced.ends_s = time.monotonic() + LINGER_S
        with suppress(OSError):
            while left_bytes > 0 and (piece := self.req.rfile.read(PIECE_BYTES)):
                left_bytes -= len(piece)
