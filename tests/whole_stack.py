"""A whole system for what is no test of pytest: its Redis is started and stopped with it."""

import asyncio
from types import TracebackType
from typing import Self

from tests.stack import Stack


class WholeStack(Stack):
    """A context: inside, Redis runs, and what is started; afterwards nothing does."""

    async def __aenter__(self) -> Self:
        """Start Redis."""
        await asyncio.to_thread(self.redis.start)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything that was started."""
        await self.close()
        await asyncio.to_thread(self.redis.stop)
