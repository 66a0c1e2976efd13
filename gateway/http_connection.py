"""cheroot's connections and requests, stricter: no byte is waited for longer than it is worth.

cheroot's own timeout starts again with each byte, so that a few callers who send one now and then
would keep all threads for ever.
"""

import json
import math
import re
import socket
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest

from gateway.caller import REQUEST_ID_HEADER, new_request_id
from gateway.header_reader import HeaderReader
from gateway.problems import CONTENT_TYPE, Problem, phrase

log = structlog.get_logger(__name__)

_OTHER_STATUS: Final = {413: 431}
"""Of cheroot's statuses those that say less than there is to say: it is the head that is too
large, as the size of a body is not its business here."""

_TARGET: Final = re.compile(rb"/(?!/)|\*\Z|(?i:https?)://[^/?#@]+([/?#]|\Z)")
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:[0-9]*)?", re.ASCII)


class PacedSocket:
    """A socket that is read from until a certain time, however slowly bytes come.

    Args:
        sock: the socket; its timeout is how long it may be silent.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.ends_s = math.inf
        """Until when to read, seconds of the monotonic clock."""
        self.is_cut = False
        """Whether we want no more of it: the request had its time, and the gateway stops."""

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

    def shutdown(self, how: int) -> None:
        """Close a direction, or both.

        While a request is in progress cheroot does that only to cut it off.
        """
        # Noted first: who sees the end of what comes must know that it is not the caller's.
        self.is_cut = True
        self._socket.shutdown(how)


class Request(HTTPRequest):
    """A request whose size is beyond doubt, and the host that it is for."""

    header_reader = HeaderReader()

    def read_request_line(self) -> bool:
        """Read it; return whether it is good."""
        # cheroot takes a whole URI as a proxy alone, but every server has to. What else it
        # would take as a proxy is refused here.
        self.proxy_mode = True
        try:
            if not super().read_request_line():  # type: ignore[no-untyped-call]
                return False
        except ValueError:
            return self._refuse("Malformed Request-URI.")
        if self.method == b"CONNECT":
            self.simple_response("405 Method Not Allowed")
            return False
        if not _TARGET.match(self.uri):
            return self._refuse("The target must be a path, or a URI of http or https.")
        if self.authority and self.method == b"OPTIONS":
            self.path = urlsplit(self.uri).path or b"/"
        return True

    def read_request_headers(self) -> bool:
        """Read them; return whether they are good."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        headers = self.inheaders
        # cheroot knows `close` alone, and in small letters.
        if b"close" in re.split(rb"[ \t]*,[ \t]*", headers.get(b"Connection", b"").lower()):
            self.close_connection = True
        # Python's own idea of a number has signs, and -1 would be a body without an end.
        if not headers.get(b"Content-Length", b"0").isdigit():
            return self._refuse("Malformed Content-Length Header.")
        coding = headers.get(b"Transfer-Encoding")
        if coding is not None and not (self.chunked_read and coding.lower() == b"chunked"):
            return self._refuse("Transfer-Encoding must be `chunked` once, and needs HTTP/1.1.")
        if b"Host" not in headers and self.response_protocol == "HTTP/1.1":
            return self._refuse("Host is missing.")
        if self.authority:
            headers[b"Host"] = self.authority
        if not _HOST.fullmatch(headers.get(b"Host", b"")):
            return self._refuse("Malformed Host Header.")
        return True

    def _refuse(self, detail: str) -> bool:
        self.simple_response("400 Bad Request", detail)
        return False

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
        log.info(
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
        self.arrived_s = math.nan
        """When its request began to arrive, seconds of the monotonic clock."""
        self.rfile = makefile(self.paced, "rb", self.rbufsize)
        self.socket = self.paced

    def communicate(self) -> Any:
        """Answer the next request; return whether another one may follow."""
        self.paced.ends_s = time.monotonic() + self.server.timeout
        return super().communicate()  # type: ignore[no-untyped-call]
