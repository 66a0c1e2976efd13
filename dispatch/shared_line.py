"""Commands of many short-lived tasks over one line, many in one round trip."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown, QueueFull
from dispatch.line import Line, timeout_of
from dispatch.scripts import Command

MOST_CALLS: Final = 64
MOST_BYTES: Final = 8 * 1024 * 1024
"""Of one round trip, where it takes no longer than Redis does."""

MOST_WAITING: Final = 4096
"""Calls that may wait to be sent. How many bytes they have is for their callers to bound."""

Exchange = Callable[[Sequence[Command], int], Awaitable[list[Any]]]
"""Sends commands with that many bytes of images; returns their replies."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    commands: tuple[Command, ...]
    size_bytes: int
    replies: "asyncio.Future[list[Any]]"


class SharedLine:
    """Callers await futures only: one that goes away cannot break the connection."""

    def __init__(
        self,
        line: Line,
        exchange: Exchange | None = None,
        *,
        most_calls: int = MOST_CALLS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Send nothing yet; `run` does.

        Args:
            line: closed by `aclose`.
            exchange: how one round trip is made over it; None: by a call.
            most_calls: in one round trip.
            most_bytes: at most one call above this goes into one round trip.
        """
        self._line = line
        self._exchange = exchange or self._call_line
        self._most_calls = most_calls
        self._most_bytes = most_bytes
        self._waiting: deque[_Call] = deque()
        self._wanted = asyncio.Event()

    async def call(self, *commands: Command, size_bytes: int = 0) -> list[Any]:
        """Return the replies to commands; an error that Redis answers is in its place.

        Args:
            commands: sent together, in order.
            size_bytes: of the images in them.

        Raises:
            QueueFull: too much waits to be sent.
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: it may or may not have been done.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise QueueFull("server/jobs", "this server has too many requests to send")
        call = _Call(commands, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._wanted.set()
        try:
            return await call.replies
        except asyncio.CancelledError:
            # What it has is large, and nobody counts it any more.
            with suppress(ValueError):  # it was sent already
                self._waiting.remove(call)
            raise
        finally:
            # What it raised knows this frame. If this frame knew it, too, the commands
            # would stay until the next collection.
            del call

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while batch := self._next_batch():
                await self._send(batch)

    def _next_batch(self) -> list[_Call]:
        batch: list[_Call] = []
        size = 0
        while self._waiting and len(batch) < self._most_calls and size < self._most_bytes:
            call = self._waiting.popleft()
            if not call.replies.done():  # its caller may just have gone
                batch.append(call)
                size += call.size_bytes
        return batch

    async def _send(self, batch: Sequence[_Call]) -> None:
        commands = [command for call in batch for command in call.commands]
        try:
            replies = iter(await self._exchange(commands, _size_bytes(batch)))
        except DespachoError as error:
            # It goes on without knowing this frame, which knows all who will raise it.
            _fail(batch, error.with_traceback(None))
            self._refuse_waiting(error)
            return
        except BaseException:
            for call in batch:
                call.replies.cancel()
            raise
        for call in batch:
            own = [next(replies) for _ in call.commands]
            if not call.replies.done():
                call.replies.set_result(own)

    async def _call_line(self, commands: Sequence[Command], size_bytes: int) -> list[Any]:
        return await self._line.call(*commands, timeout_s=timeout_of(size_bytes))

    def _refuse_waiting(self, error: DespachoError) -> None:
        # Sent one after the other, each would find out for itself that Redis is away.
        if isinstance(error, BrokerUnavailable | OutcomeUnknown):
            refused = list(self._waiting)
            self._waiting.clear()
            _fail(refused, BrokerUnavailable("the broker cannot be reached"))

    async def aclose(self) -> None:
        """Close the connection; calls that still wait are cancelled."""
        for call in self._waiting:
            call.replies.cancel()
        self._waiting.clear()
        await self._line.close()


def _size_bytes(calls: Iterable[_Call]) -> int:
    return sum(call.size_bytes for call in calls)


def _fail(calls: Iterable[_Call], error: DespachoError) -> None:
    for call in calls:
        if not call.replies.done():
            call.replies.set_exception(error)
