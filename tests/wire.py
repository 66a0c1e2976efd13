"""A stretch of wire between a client and a server, at which tests listen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CHUNK_BYTES = 65536


@dataclass
class Wire:
    """What went over it."""

    address: str = ""
    """Where clients connect instead of the server."""

    sent_bytes: int = 0
    """From clients to the server."""

    answered_bytes: int = 0
    """From the server to clients."""

    is_cut: bool = False
    """Whether nothing goes through any more, and nobody is told."""

    arrivals: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    """One item for each connection that was made."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def forget(self) -> None:
        """Count from nothing again."""
        self.sent_bytes = self.answered_bytes = 0


@asynccontextmanager
async def wire_to(address: str) -> AsyncIterator[Wire]:
    """Put a wire before the server at an address of TCP."""
    wire = Wire()
    host, _, port = address.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        wire.writers += (writer, inner_writer)
        wire.arrivals.put_nowait(wire.address)

        async def upwards() -> None:
            while data := await reader.read(CHUNK_BYTES):
                wire.sent_bytes += len(data)
                await _passed_on(wire, inner_writer, data)

        async def downwards() -> None:
            while data := await inner_reader.read(CHUNK_BYTES):
                wire.answered_bytes += len(data)
                await _passed_on(wire, writer, data)

        both = [asyncio.create_task(upwards()), asyncio.create_task(downwards())]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task, end in zip(both, (inner_writer, writer), strict=True):
            task.cancel()
            end.close()
        await asyncio.gather(*both, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.address = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield wire
    finally:
        server.close()
        for writer in wire.writers:
            writer.transport.abort()


async def _passed_on(wire: Wire, writer: asyncio.StreamWriter, data: bytes) -> None:
    if not wire.is_cut:
        writer.write(data)
        await writer.drain()
