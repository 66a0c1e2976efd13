"""HTTP/2 by hand, to say what no library would: frames, requests, and what comes back."""

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from hpack import Decoder, Encoder, HPACKError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
LOST: Final = -1
HEAD_BYTES: Final = 9
INITIAL_WINDOW: Final = 4
"""The setting that says how much may be sent to us."""

Header = tuple[str, str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame, whatever sense it makes."""
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
    return head + payload


def settings(values: Iterable[tuple[int, int]] = ()) -> bytes:
    """Return a frame of settings."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in values))


def request_headers(path: str, *extra: Header, without: Sequence[str] = ()) -> list[Header]:
    """Return the headers of a good request, and more of them."""
    usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    changed = {name for name, _ in extra} | set(without)
    return [pair for pair in usual if pair[0] not in changed] + list(extra)


def message(content: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message with its prefix; `length` is what the prefix says."""
    return struct.pack(">BI", flag, len(content) if length is None else length) + content


class Wire:
    """One connection; nothing is sent but what one says."""

    def __init__(self, address: str, *, timeout_s: float = 10) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 20
        self.trailers: dict[str, str] = {}
        """What came with the last status."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def greet(self, values: Iterable[tuple[int, int]] = ()) -> None:
        """Begin as a client does."""
        self.send(PREFACE + settings(values))

    def send(self, data: bytes) -> bool:
        """Send; return False if the other side has hung up, or takes no more."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def headers(self, stream: int, headers: Sequence[Header], flags: int = END_HEADERS) -> bytes:
        """Return the frame of a request's headers."""
        return frame(HEADERS, flags, stream, self._encoder.encode(headers, huffman=False))

    def reset(self) -> None:
        """Hang up without a word: the other side gets RST in the place of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def outcome(self, stream: int, *, within_s: float) -> str:
        """Return how a request ended: a gRPC status, or what else said that it is over.

        Returns:
            `grpc 3`, `http 415`, `reset`, `goaway`, `closed`, or nothing: no end came.
        """
        self._socket.settimeout(within_s)
        ends_at = time.monotonic() + within_s
        status = ""
        for kind, flags, number, payload in self._frames():
            if kind == SETTINGS and not flags:
                self.send(frame(SETTINGS, 1, 0))
            elif kind in {GOAWAY, LOST}:
                return payload.decode() if kind == LOST else "goaway"
            elif number == stream and kind == HEADERS:
                status = self._status(payload) or status
            is_end = kind == RST or (kind in {HEADERS, DATA} and flags & END_STREAM)
            if number == stream and is_end:
                return status or ("reset" if kind == RST else "ended")
            if time.monotonic() > ends_at:
                break
        return ""

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield what comes; at last, with the kind `LOST`, why nothing more does."""
        buffer = b""
        while True:
            try:
                more = self._socket.recv(65_536)
            except TimeoutError:
                return
            except OSError:
                more = b""
            if not more:
                yield LOST, 0, 0, b"closed"
                return
            buffer += more
            while len(buffer) >= HEAD_BYTES and len(buffer) >= HEAD_BYTES + _size(buffer):
                end = HEAD_BYTES + _size(buffer)
                yield (*_head(buffer), buffer[HEAD_BYTES:end])
                buffer = buffer[end:]

    def _status(self, payload: bytes) -> str:
        try:
            pairs = self._decoder.decode(payload, raw=True)
        except HPACKError:
            return "unreadable"
        headers = {bytes(k).decode(): bytes(v).decode("latin-1") for k, v in pairs}
        if "grpc-status" in headers:
            self.trailers = headers
            return f"grpc {headers['grpc-status']}"
        http = headers.get(":status", "200")
        return "" if http == "200" else f"http {http}"


def _size(buffer: bytes) -> int:
    return int.from_bytes(buffer[:3], "big")


def _head(buffer: bytes) -> tuple[int, int, int]:
    return buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big") & 0x7FFFFFFF
