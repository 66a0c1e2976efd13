"""Commands of many short-lived tasks over one line, many in one round trip."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dispatch.errors import DespachoError
from dispatch.line import Line
from dispatch.scripts import Command

MOST_CALLS: Final = 64
MOST_BYTES: Final = 8 * 1024 * 1024
"""At most one call above this goes into one round trip."""

Exchange = Callable[[Sequence[Command], int], Awaitable[list[Any]]]
"""Sends commands with that many bytes of images; returns their replies."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    commands: tuple[Command, ...]
    size_bytes: int
    replies: "asyncio.Future[list[Any]]"


class SharedLine:
    """Callers await futures only: one that goes away cannot break the connection."""

    def __init__(self, line: Line, exchange: Exchange) -> None:
        """Send nothing yet; `run` does.

        Args:
            line: closed by `aclose`.
            exchange: how one round trip is made over it.
        """
        self._line = line
        self._exchange = exchange
        self._waiting: deque[_Call] = deque()
        self._wanted = asyncio.Event()

    async def call(self, *commands: Command, size_bytes: int = 0) -> list[Any]:
        """Return the replies to commands; an error that Redis answers is in its place.

        Args:
            commands: sent together, in order.
            size_bytes: of the images in them.

        Raises:
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: it may or may not have been done.
        """
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(commands, size_bytes, replies))
        self._wanted.set()
        return await replies

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
        while self._waiting and len(batch) < MOST_CALLS and size < MOST_BYTES:
            call = self._waiting.popleft()
            if not call.replies.done():  # its caller has gone
                batch.append(call)
                size += call.size_bytes
        return batch

    async def _send(self, batch: Sequence[_Call]) -> None:
        commands = [command for call in batch for command in call.commands]
        try:
            replies = iter(await self._exchange(commands, sum(call.size_bytes for call in batch)))
        except DespachoError as error:
            for call in batch:
                if not call.replies.done():
                    call.replies.set_exception(error)
            return
        except BaseException:
            for call in batch:
                call.replies.cancel()
            raise
        for call in batch:
            own = [next(replies) for _ in call.commands]
            if not call.replies.done():
                call.replies.set_result(own)

    async def aclose(self) -> None:
        """Close the connection; calls that still wait are cancelled."""
        for call in self._waiting:
            call.replies.cancel()
        self._waiting.clear()
        await self._line.close()
