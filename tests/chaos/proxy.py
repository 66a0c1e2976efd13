"""A TCP proxy before Redis that drops, delays, half-closes, freezes or swallows on command."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

CHUNK_BYTES: Final = 65536
CONTROL_S: Final = 10.0
"""How long a command to the proxy may take."""


class Proxy:
    """Runs in a thread of its own, so that a busy runner does not delay traffic."""

    def __init__(self, target_port: int) -> None:
        """Listen nowhere yet.

        Args:
            target_port: where connections go, on the loopback.
        """
        self.port = 0
        self._target_port = target_port
        self._delay_s = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._callers: set[asyncio.StreamWriter] = set()
        self._half_closed: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[Any]] = set()
        self._flowing: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        self.port = self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        """Break everything and end."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_S)
        self._loop.close()

    @property
    def url(self) -> str:
        """Redis, as seen through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._callers)

    def drop(self) -> int:
        """Break all connections with a reset; return how many."""
        return self._do(self._drop())

    def delay(self, seconds: float) -> None:
        """Hold each piece of data, in both directions, for a while; 0: no longer."""
        self._delay_s = seconds

    def half_close(self) -> int:
        """Send FIN to all who are connected, and still take what they send."""
        return self._do(self._half_close())

    def freeze(self) -> int:
        """Let nothing more through for those who are connected; return how many they are.

        New connections work: so does a router that has forgotten the old ones.
        """
        return self._do(self._freeze())

    def swallow(self) -> None:
        """Let nothing through and break nothing, as a cut cable does."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Let through again what was held back, as a mended cable does."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def switch(self, target_port: int) -> None:
        """Let new connections go elsewhere, as behind an address that moves; the others stay."""
        self._target_port = target_port

    def _do(self, work: "Coroutine[Any, Any, int]") -> int:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_S)

    async def _listen(self) -> int:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (handler := asyncio.current_task()) is not None:
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)
        try:
            from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._callers.add(writer)
        both = {writer, to_redis}
        self._writers |= both
        pumps = [
            asyncio.create_task(self._pump(reader, to_redis)),
            asyncio.create_task(self._pump(from_redis, writer)),
        ]
        try:
            # One side that ends, ends both: a half-closed one is made by `half_close` only.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers -= both
            self._callers.discard(writer)
            self._half_closed.discard(writer)
            self._frozen -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._flowing.wait()
            if writer.transport.is_closing():
                return
            if writer in self._half_closed or writer in self._frozen:
                continue
            try:
                writer.write(data)
                await writer.drain()
            except (OSError, RuntimeError):
                return  # closed meanwhile

    async def _drop(self) -> int:
        dropped = len(self._callers)
        for writer in list(self._writers):
            writer.transport.abort()
        return dropped

    async def _half_close(self) -> int:
        closed = 0
        for writer in list(self._callers):
            if not writer.transport.is_closing():
                writer.write_eof()
                self._half_closed.add(writer)
                closed += 1
        return closed

    async def _freeze(self) -> int:
        self._frozen |= self._writers
        return len(self._callers)

    async def _close(self) -> int:
        self._server.close()
        self._flowing.set()
        await self._drop()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=CONTROL_S / 2)
        return 0
