"""The door of the front-end: counts the calls inside, and closes for good."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from dispatch.errors import Draining
from server.call_record import CallRecord

T = TypeVar("T")


class Gate:
    """Lets calls in until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        """Set when no more calls are let in; calls that would never end should."""

        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def admit(self, record: CallRecord) -> None:
        """Let the call of the running task in; it counts until its status is sent.

        Raises:
            Draining: the gate is closed. Health checks are let in for ever.
        """
        if record.is_infrastructure:
            return
        if self.closed.is_set():
            raise Draining("this server is shutting down; another one will answer")
        self._inside += 1
        self._empty.clear()
        # The task of the call ends when the last byte is handed over, which is later than the
        # end of the handler. gRPC's own `add_done_callback` says so at the same moment, but makes
        # a ring of the call and its context, which stays until garbage is collected.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a call is a task
        task.add_done_callback(self._leave)

    async def unless_closed(self, answer: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer, but only while the gate is open.

        Raises:
            Draining: the gate was closed first.
        """
        waiting = asyncio.ensure_future(answer)
        closing = asyncio.create_task(self.closed.wait())
        try:
            await asyncio.wait([waiting, closing], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Draining("this server is shutting down; another one will answer")
            return await waiting
        finally:
            waiting.cancel()
            closing.cancel()

    def close(self) -> None:
        """Let no more calls in."""
        self.closed.set()

    async def empty(self) -> None:
        """Wait until no call is inside."""
        await self._empty.wait()

    def _leave(self, call: "asyncio.Task[Any]") -> None:
        del call
        self._inside -= 1
        if self._inside == 0:
            self._empty.set()
