"""Answers in the order of the questions, for clients that match them by nothing else."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

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
            await before.wait()
            raise
        await before.wait()
        mine.set()
        return found
