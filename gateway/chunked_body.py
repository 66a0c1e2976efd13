"""The body of a request whose size nobody announced, read as narrowly as HTTP defines it.

A proxy that takes other line ends than we do sees chunks end elsewhere, and so another request
behind them.
"""

import re
from typing import Any, Final

from gateway.header_reader import LINE

MAX_LINE_BYTES: Final = 1024
"""Longest line between chunks, bytes."""

_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(;[^\x00\r\n]*)?\r\n")
_END: Final = b"\r\n"


class BrokenBody(OSError):
    """The body is cut short, or is not what its headers say."""


class ChunkedBody:
    """Reads `Transfer-Encoding: chunked`, whatever the size of its chunks, in small pieces.

    Args:
        source: the buffered bytes of the connection, behind the headers.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._left_bytes = 0
        self.has_ended = False
        """Whether all of it was read."""

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, none beyond the end of a chunk; none at all at the end.

        Raises:
            BrokenBody: it is not in chunks, or ends in the middle.
        """
        if self.has_ended or size == 0:
            return b""
        if self._left_bytes == 0:
            self._left_bytes = self._next_size()
            if self._left_bytes == 0:
                self._skip_trailers()
                self.has_ended = True
                return b""
        wanted = self._left_bytes if size < 0 else min(size, self._left_bytes)
        data: bytes = self._source.read(min(wanted, 64 * 1024))
        if not data:
            raise BrokenBody("the body was cut short")
        self._left_bytes -= len(data)
        if self._left_bytes == 0 and self._line() != _END:
            raise BrokenBody("a chunk is longer than its size")
        return data

    def _next_size(self) -> int:
        match = _SIZE.fullmatch(self._line())
        if match is None:
            raise BrokenBody("the body is not in chunks")
        return int(match[1], 16)

    def _skip_trailers(self) -> None:
        for _ in range(64):
            line = self._line()
            if line == _END:
                return
            if LINE.fullmatch(line) is None:
                raise BrokenBody("a trailer is malformed")
        raise BrokenBody("the body has too many trailers")

    def _line(self) -> bytes:
        line: bytes = self._source.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise BrokenBody("the body was cut short")
        return line
