"""Answers in the order of the questions, for clients that match them by nothing else."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from server import cancellation

T = TypeVar("T")


class InOrder:
    """Lets pieces of work end in the order in which they began.

    They run at the same time; whichever is ready early waits for those before it.
    """

    def __init__(self) -> None:
        self._last = asyncio.Event()
        self._last.set()

    async def result(self, work: Awaitable[T]) -> T:
        """Return the result of `work` when all before it have returned theirs.

        Raises:
            Exception: whatever `work` raised; then none after it ever returns.
        """
        before, mine = self._last, asyncio.Event()
        self._last = mine
        try:
            found = await work
        except Exception:
            await _turn(before)
            raise
        await _turn(before)
        mine.set()
        return found


async def _turn(before: asyncio.Event) -> None:
    """Wait for those before, unless the running task is cancelled.

    They were cancelled with it, then, and never end: what failed in the moment in which it was
    cancelled would wait for ever.
    """
    if not cancellation.was_asked_for():
        await before.wait()
