"""cheroot's connections and requests, stricter: no byte is waited for longer than it is worth.

cheroot's own timeout starts again with each byte, so that a few callers who send one now and then
would keep all threads for ever.
"""

import json
import math
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import structlog
from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest

from gateway.caller import REQUEST_ID_HEADER, new_request_id
from gateway.problems import CONTENT_TYPE, Problem, phrase

log = structlog.get_logger(__name__)

_OTHER_STATUS: Final = {413: 431}
"""Of cheroot's statuses those that say less than there is to say: it is the head that is too
large, as the size of a body is not its business here."""


class PacedSocket:
    """A socket that is read from until a certain time, however slowly bytes come.

    Args:
        sock: the socket; its timeout is how long it may be silent.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.ends_s = math.inf
        """Until when to read, seconds of the monotonic clock."""

    def __getattr__(self, name: str) -> Any:
        """Be the socket in all else."""
        return getattr(self._socket, name)

    def recv_into(self, buffer: Any) -> int:
        """Read what there is.

        Raises:
            TimeoutError: nothing came for too long, or the time is over.
        """
        silence_s = self._socket.gettimeout()
        left_s = self.ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if silence_s is not None and silence_s <= left_s:
            return self._socket.recv_into(buffer)
        self._socket.settimeout(left_s)
        try:
            return self._socket.recv_into(buffer)
        finally:
            # It is also that of the answer.
            self._socket.settimeout(silence_s)


class Headers(dict[bytes, bytes]):
    """Those of one request."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        """Add one, unless an application would take `Content_Length` for `Content-Length`.

        Raises:
            ValueError: the size of the body is there twice, and not the same: a proxy may have
                taken the other one, and something else for the next request.
        """
        if name == b"Content-Length" and self.get(name, value) != value:
            raise ValueError("Content-Length is there twice")
        if b"_" not in name:
            super().__setitem__(name, value)


class Request(HTTPRequest):
    """A request whose size is beyond doubt."""

    def read_request_headers(self) -> bool:
        """Read them; return whether they are good."""
        self.inheaders = Headers()
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        # Python's own idea of a number has signs, and -1 would be a body without an end.
        if not self.inheaders.get(b"Content-Length", b"0").isdigit():
            self.simple_response("400 Bad Request", "Malformed Content-Length Header.")
            return False
        if b"Transfer-Encoding" in self.inheaders and not self.chunked_read:
            self.simple_response("400 Bad Request", "Transfer-Encoding needs HTTP/1.1.")
            return False
        return True

    def simple_response(self, status: str, msg: str = "") -> None:
        """Refuse what is no request that the application could answer, as that would do it.

        Args:
            status: number and name.
            msg: what is wrong, for a person.
        """
        number = int(status.split(maxsplit=1)[0])
        number = _OTHER_STATUS.get(number, number)
        problem = Problem(status=number, detail=msg or phrase(number))
        request_id = new_request_id()
        body = json.dumps(problem.body(request_id)).encode()
        head = (
            f"{self.server.protocol} {number} {phrase(number)}",
            f"Content-Type: {CONTENT_TYPE}",
            f"Content-Length: {len(body)}",
            f"{REQUEST_ID_HEADER}: {request_id}",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        )
        # Who connects and says nothing, as browsers do to be quicker later, is worth no line.
        write = log.debug if number == HTTPStatus.REQUEST_TIMEOUT else log.info
        write(
            "request refused before it was read",
            status=number,
            detail=problem.detail,
            request_id=request_id,
            peer=self.conn.remote_addr,
        )
        self.close_connection = True
        with suppress(OSError):
            self.conn.wfile.write("\r\n".join((*head, "", "")).encode("latin-1") + body)


class Connection(HTTPConnection):
    """A connection whose requests have as long for their heads as it may be silent."""

    RequestHandlerClass = Request

    def __init__(self, server: Any, sock: socket.socket, makefile: Any = MakeFile) -> None:
        super().__init__(server, sock, makefile)
        self.paced = PacedSocket(sock)
        self.rfile = makefile(self.paced, "rb", self.rbufsize)

    def communicate(self) -> Any:
        """Answer the next request; return whether another one may follow."""
        self.paced.ends_s = time.monotonic() + self.server.timeout
        return super().communicate()  # type: ignore[no-untyped-call]
