"""Many requests of one stream at once, but never more than fit into a window."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, Generic, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")

UNTAKEN: Final = 4
"""Responses that wait for the consumer: with so many, nobody is in a hurry for more."""

TOGETHER: Final = 8
"""Requests that are begun at once then. gRPC hands them over one by one, which would become a job
in Redis, a claim and an answer each; more at once made no difference."""

HELD_S: Final = 0.005
"""How long a request waits for others at most, however slowly the consumer takes responses."""


class StreamWindow(Generic[Request, Response]):
    """Answers the requests of one stream in the order in which the work finishes.

    A place in the window is taken before a request is read and given back when its
    response has been taken by the consumer. So neither a fast sender nor a reader
    that never reads makes the server hold more than `size` requests and responses.

    Args:
        answer: answers one request; turns its own failures into responses.
        size: most requests that were read and whose responses were not taken.
        closing: when set, reading ends as if the sender had ended the stream.
    """

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Response]],
        *,
        size: int,
        closing: asyncio.Event,
    ) -> None:
        self._answer = answer
        self._closing = closing
        self._places = asyncio.Semaphore(size)
        self._held: list[Request] = []
        """Those that were read and wait for others, while responses wait as well."""

        self._timer: asyncio.TimerHandle | None = None
        self._in_work: set[asyncio.Task[None]] = set()
        # None: there will be no more.
        self._ready: asyncio.Queue[Response | None] = asyncio.Queue()
        self.was_cut = False
        """Whether reading ended because of `closing`, before the sender's end."""

        self._fault: BaseException | None = None

    async def responses(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Response]:
        """Yield the response to each request.

        Leaving early cancels what is in work and waits until it has ended.

        Raises:
            Exception: whatever reading raised, after the responses to what was
                read before.
        """
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._end_if_complete(reader))
        cutter = asyncio.create_task(self._cut(reader))
        try:
            while (response := await self._ready.get()) is not None:
                yield response
                self._places.release()
                self._begin_wanted(reader)
            if self._fault is not None:
                raise self._fault
            if not self.was_cut:
                reader.result()
        finally:
            self._held.clear()
            self._begin(reader)  # nothing, and no more by the timer
            try:
                await _cancelled(reader, cutter, *self._in_work)
            finally:
                self._fault = None  # it knows the work, which knows this: a ring

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        me = asyncio.current_task()
        try:
            while True:
                await self._places.acquire()
                try:
                    request = await anext(requests)
                except StopAsyncIteration:
                    return
                self._held.append(request)
                # It may be long until the next one comes, and this one large.
                del request
                self._begin_wanted(me)
        finally:
            self._begin(me)
            # The task knows this frame when it is cancelled. If this frame knew it, too, all of
            # the stream would stay until the next collection of garbage.
            del me

    def _begin_wanted(self, reader: "asyncio.Task[None] | None") -> None:
        if self._ready.qsize() < UNTAKEN or len(self._held) >= TOGETHER:
            self._begin(reader)
        elif self._held and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HELD_S, self._begin, reader)

    def _begin(self, reader: "asyncio.Task[None] | None") -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for request in self._held:
            work = asyncio.create_task(self._work(request))
            self._in_work.add(work)
            work.add_done_callback(partial(self._finish, reader=reader))
        self._held.clear()

    async def _work(self, request: Request) -> None:
        try:
            self._ready.put_nowait(await self._answer(request))
        except asyncio.CancelledError as error:
            # Without the frames it came through: a group of tasks keeps it in one of them.
            raise error.with_traceback(None) from None

    async def _cut(self, reader: asyncio.Task[None]) -> None:
        await self._closing.wait()
        self.was_cut = reader.cancel()

    def _finish(self, work: asyncio.Task[None], *, reader: "asyncio.Task[None] | None") -> None:
        self._in_work.discard(work)
        if not work.cancelled() and (fault := work.exception()) is not None:
            self._fault = fault
            self._ready.put_nowait(None)
        self._end_if_complete(reader)

    def _end_if_complete(self, reader: "asyncio.Task[None] | None") -> None:
        if reader is not None and reader.done() and not self._in_work:
            self._ready.put_nowait(None)


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks` and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
