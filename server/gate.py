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

    def admit(self, record: CallRecord) -> bool:
        """Let the call of the running task in, unless the gate is closed; say whether it is in.

        It counts from here, before its message is there, until its status is sent. So whoever
        has begun to send when the gate closes may end, and one that never does holds up the
        shutdown until its time is over. Health checks are let in for ever.
        """
        if record.is_infrastructure:
            return True
        if self.closed.is_set():
            return False
        self._inside += 1
        self._empty.clear()
        # The task of the call ends when the last byte is handed over, which is later than the
        # end of the handler. gRPC's own `add_done_callback` says so at the same moment, but makes
        # a ring of the call and its context, which stays until garbage is collected.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a call is a task
        task.add_done_callback(self._leave)
        return True

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
                raise draining()
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


def draining() -> Draining:
    """Return what those are told who come to a closed gate."""
    return Draining("this server is shutting down; another one will answer")
