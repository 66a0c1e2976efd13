"""The window of a stream: order, bound, ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from server.stream_window import StreamWindow
from tests.front_end import LIMIT_S, Notice


class Sender:
    """Sends `count` requests, or for ever; knows how many were read."""

    def __init__(self, count: int, *, is_endless: bool = False) -> None:
        self.count = count
        self.is_endless = is_endless
        self.read = 0

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        if self.read == self.count:
            if self.is_endless:
                await asyncio.Event().wait()
            raise StopAsyncIteration
        self.read += 1
        return self.read


async def echo(request: int) -> int:
    return request


class Worker:
    """Holds every request until cancelled."""

    def __init__(self) -> None:
        self.notice = Notice()
        self.held = 0

    async def __call__(self, request: int) -> int:
        self.held += 1
        self.notice.announce()
        try:
            await asyncio.Event().wait()
        finally:
            self.held -= 1
            self.notice.announce()
        return request


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_never_more_than_the_window_is_read_and_not_taken(size: int) -> None:
    sender = Sender(100)
    taken = 0
    most = 0

    async def answer(request: int) -> int:
        nonlocal most
        # The response that the consumer has in its hands counts as well.
        most = max(most, sender.read - taken)
        return request

    window = StreamWindow(answer, size=size, closing=asyncio.Event())
    async for _ in window.responses(sender):
        taken += 1
    assert taken == 100
    assert most <= size + 1
    assert sender.read == 100


async def test_a_consumer_that_takes_nothing_stops_the_reading() -> None:
    sender = Sender(100)
    worker = Worker()
    window = StreamWindow(worker, size=3, closing=asyncio.Event())
    consumer = asyncio.ensure_future(anext(window.responses(sender)))
    await worker.notice.until(lambda: worker.held == 3)
    assert sender.read == 3
    consumer.cancel()
    await asyncio.gather(consumer, return_exceptions=True)
    assert worker.held == 0


async def test_leaving_early_cancels_what_is_in_work_and_leaves_no_task() -> None:
    tasks = asyncio.all_tasks()
    worker = Worker()

    async def answer(request: int) -> int:
        return request if request == 1 else await worker(request)

    window = StreamWindow(answer, size=5, closing=asyncio.Event())
    async with asyncio.timeout(LIMIT_S), aclosing(window.responses(Sender(9))) as responses:
        assert await anext(responses) == 1
        await worker.notice.until(lambda: worker.held == 4)
    assert worker.held == 0
    assert asyncio.all_tasks() == tasks


async def test_what_was_read_is_answered_when_reading_is_cut() -> None:
    closing = asyncio.Event()
    window = StreamWindow(echo, size=5, closing=closing)
    received = []
    async for response in window.responses(Sender(3, is_endless=True)):
        received.append(response)
        if len(received) == 3:
            closing.set()
    assert sorted(received) == [1, 2, 3]
    assert window.was_cut


async def test_a_stream_that_ended_by_itself_was_not_cut() -> None:
    closing = asyncio.Event()
    window = StreamWindow(echo, size=5, closing=closing)
    assert sorted([response async for response in window.responses(Sender(3))]) == [1, 2, 3]
    assert not window.was_cut


async def test_a_failure_of_reading_comes_after_what_was_read_before() -> None:
    async def torn() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    window = StreamWindow(echo, size=5, closing=asyncio.Event())
    responses = window.responses(torn())
    assert await anext(responses) == 1
    with pytest.raises(ConnectionError):
        await anext(responses)


async def test_an_answer_that_raises_ends_the_stream_with_its_error() -> None:
    async def broken(request: int) -> int:
        raise KeyError(request)

    window = StreamWindow(broken, size=5, closing=asyncio.Event())
    with pytest.raises(KeyError):
        await anext(window.responses(Sender(3, is_endless=True)))
