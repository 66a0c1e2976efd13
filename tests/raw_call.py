"""A call in frames of HTTP/2, to send what no library would, or when none would."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.front_end import LIMIT_S

DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS = 1, 4
STREAM = 1


class RawCall:
    """The only call of a connection; its headers are sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = b""

    def send(self, data: bytes, *, is_last: bool = False) -> None:
        """Send some bytes of a message, or of several."""
        self._writer.write(_frame(DATA, END_STREAM if is_last else 0, STREAM, data))

    async def until_read(self) -> None:
        """Wait until the server has read what was sent."""
        self._writer.write(_frame(PING, 0, 0, b"read it?"))
        await self.until(b"read it?")

    async def until(self, expected: bytes) -> bytes:
        """Return all that came back as soon as it has these bytes."""
        async with asyncio.timeout(LIMIT_S):
            while expected not in self._answer:
                new = await self._reader.read(65536)
                assert new, f"the connection ended with {self._answer!r}"
                self._answer += new
        return self._answer


@asynccontextmanager
async def raw_call(address: str, method: str) -> AsyncIterator[RawCall]:
    """Begin a call; on the way out, leave."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "test",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # Each field is one without indexing, whose name follows.
    block = b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in headers.items())
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, b""))
    writer.write(_frame(HEADERS, END_HEADERS, STREAM, block))
    try:
        yield RawCall(reader, writer)
    finally:
        writer.close()


def message(content: bytes) -> bytes:
    """Return a message with its prefix."""
    return struct.pack(">BI", 0, len(content)) + content


def _literal(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload
