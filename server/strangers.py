"""Receives the messages of those who need no right to call, few of them for long.

gRPC keeps what it has of a message until it has all, of whoever sends it and as long as the
connection lasts: calls of one stranger would hold as much memory as they like to fill. The message
of a probe comes with its call, so whoever lets us wait may not for long, and not with many others.
Nothing else is refused: no stranger can keep probes away.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dispatch.errors import DespachoError, ExpiredInQueue, QueueFull

QUICK_S: Final = 0.5
"""How long each may take, seconds: that of a link that is slow, or of a server that is busy."""

PATIENCE_S: Final = 5.0
"""How long the first few may take that are slower, seconds."""

MOST_SLOW: Final = 8
"""How many that is."""


class Strangers:
    """Those whose message is on its way.

    Args:
        read: returns the message of a call.
    """

    def __init__(self, read: Callable[[Any], Awaitable[Any]]) -> None:
        self._read = read
        self._slow_count = 0
        self._reading: set[asyncio.Future[Any]] = set()

    async def message(self, context: Any) -> Any | DespachoError:
        """Return the message of a call, or why it is not waited for any more."""
        reading = asyncio.ensure_future(self._read(context))
        self._reading.add(reading)
        reading.add_done_callback(self._forget)
        # Never cancelled: what had come by then would not be freed. It ends with its call.
        await asyncio.wait([reading], timeout=QUICK_S)
        if not reading.done():
            if self._slow_count >= MOST_SLOW:
                return QueueFull("server/receiving", "this server waits for as many as it may")
            self._slow_count += 1
            try:
                await asyncio.wait([reading], timeout=PATIENCE_S - QUICK_S)
            finally:
                self._slow_count -= 1
        if not reading.done():
            return ExpiredInQueue(f"the request was not complete within {PATIENCE_S:g} s")
        return reading.result()

    def _forget(self, reading: "asyncio.Future[Any]") -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # so that nobody complains that it was never asked for
