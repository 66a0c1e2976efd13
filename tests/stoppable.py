"""A front-end that stops while calls to it are still made."""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Self

from tests.front_end import FrontEnd


class Stoppable:
    """Stops when it is told to, and at the latest on the way out.

    A server that a failed test left behind would fail others, or end their process.
    """

    front: FrontEnd

    def __init__(self, context: AbstractAsyncContextManager[FrontEnd]) -> None:
        self._context = context
        self._stack = AsyncExitStack()
        self._end: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.front = await self._stack.enter_async_context(self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def stop(self) -> "asyncio.Task[None]":
        """Begin to stop; return what ends when it has stopped.

        The channel of the front-end is closed first: what is called meanwhile needs its own.
        """
        if self._end is None:
            self._end = asyncio.create_task(self._stack.aclose())
        return self._end
