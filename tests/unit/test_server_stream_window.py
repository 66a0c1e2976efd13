"""The window of a stream: order, bound, ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from server import stream_window
from server.stream_window import TOGETHER, UNTAKEN, StreamWindow
from tests.front_end import LIMIT_S, Notice


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait for each other for longer than a test takes."""
    monkeypatch.setattr(stream_window, "HELD_S", 600)


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


class Backlog:
    """A stream of which `UNTAKEN` answers wait to be taken, and the consumer has another one."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.begun: list[int] = []
        self.notice = Notice()
        self._sent: asyncio.Queue[int | None] = asyncio.Queue()
        window = StreamWindow(self._answer, size=64, closing=self.closing)
        self.responses = window.responses(self._requests())

    @classmethod
    @asynccontextmanager
    async def built_up(cls) -> "AsyncIterator[Backlog]":
        backlog = cls()
        async with asyncio.timeout(LIMIT_S), aclosing(backlog.responses):
            backlog.send(*range(1 + UNTAKEN))
            assert await anext(backlog.responses) == 0
            await backlog.settled()
            assert backlog.begun == list(range(1 + UNTAKEN))
            backlog.begun.clear()
            yield backlog

    def send(self, *numbers: int | None) -> None:
        """Send requests; None: the end."""
        for number in numbers:
            self._sent.put_nowait(number)

    async def settled(self) -> None:
        """Let all happen that can."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def _requests(self) -> AsyncIterator[int]:
        while (number := await self._sent.get()) is not None:
            yield number

    async def _answer(self, request: int) -> int:
        self.begun.append(request)
        self.notice.announce()
        return request


@pytest.mark.usefixtures("patient")
async def test_while_answers_wait_requests_wait_for_each_other() -> None:
    async with Backlog.built_up() as backlog:
        *first, last = range(100, 100 + TOGETHER)
        backlog.send(*first)
        await backlog.settled()
        assert backlog.begun == []
        backlog.send(last)
        await backlog.settled()
        assert backlog.begun == [*first, last]


@pytest.mark.usefixtures("patient")
async def test_they_wait_no_longer_once_answers_are_taken() -> None:
    async with Backlog.built_up() as backlog:
        backlog.send(100, 101)
        await backlog.settled()
        assert backlog.begun == []
        await anext(backlog.responses)
        # The consumer is done with one when it asks for the next.
        await anext(backlog.responses)
        await backlog.settled()
        assert backlog.begun == [100, 101]


async def test_they_do_not_wait_for_ever_for_a_consumer_that_takes_nothing() -> None:
    async with Backlog.built_up() as backlog:
        backlog.send(100, 101)
        await backlog.notice.until(lambda: backlog.begun == [100, 101])


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_cut", [True, False])
async def test_those_that_wait_are_answered_when_reading_ends(*, is_cut: bool) -> None:
    async with Backlog.built_up() as backlog:
        backlog.send(100, 101)
        await backlog.settled()
        if is_cut:
            backlog.closing.set()
        else:
            backlog.send(None)
        received = [response async for response in backlog.responses]
        assert received == [*range(1, 1 + UNTAKEN), 100, 101]


@pytest.mark.usefixtures("patient")
async def test_those_that_wait_are_not_begun_when_the_consumer_leaves() -> None:
    tasks = asyncio.all_tasks()
    async with Backlog.built_up() as backlog:
        backlog.send(100, 101)
        await backlog.settled()
    await backlog.settled()
    assert backlog.begun == []
    assert asyncio.all_tasks() == tasks
