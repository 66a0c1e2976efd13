"""The task in which gRPC reads what a call of the asyncio client sends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

RequestT = TypeVar("RequestT")


class Sender:
    """Ends that task with the call.

    gRPC does so when a call is cancelled. When the server ends it, the task stays where it
    is, takes one thing more from the caller's input when there is one, and loses it.
    """

    def __init__(self) -> None:
        """Know of no task yet."""
        self._task: asyncio.Task[Any] | None = None

    async def sending(self, requests: AsyncIterator[RequestT]) -> AsyncIterator[RequestT]:
        """Yield the same requests, to gRPC."""
        self._task = asyncio.current_task()
        async for request in requests:
            yield request

    def stop(self) -> None:
        """Read no more; harmless when it has ended."""
        if self._task is not None:
            self._task.cancel()
