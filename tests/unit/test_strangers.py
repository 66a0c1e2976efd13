"""Messages of those who need no right to call are not waited for long, nor are many of them."""

import asyncio
from typing import Any

import pytest

from dispatch.errors import ExpiredInQueue, QueueFull
from server import strangers
from server.strangers import MOST_SLOW, Strangers
from tests.front_end import LIMIT_S

MESSAGE = b"message"


class Line:
    """Reads what never comes by itself."""

    def __init__(self) -> None:
        self.reading: list[asyncio.Future[bytes]] = []

    async def read(self, context: Any) -> bytes:
        del context
        self.reading.append(asyncio.get_running_loop().create_future())
        return await self.reading[-1]


@pytest.fixture
def line() -> Line:
    return Line()


def begin(waiting: Strangers) -> "asyncio.Task[Any]":
    return asyncio.create_task(waiting.message(None))


async def end_of(task: "asyncio.Task[Any]") -> Any:
    async with asyncio.timeout(LIMIT_S):
        return await task


async def test_a_message_that_is_there_is_returned() -> None:
    async def read(context: Any) -> Any:
        return context

    assert await Strangers(read).message(MESSAGE) == MESSAGE


async def test_what_reading_raises_is_raised() -> None:
    async def read(context: Any) -> Any:
        raise KeyError(context)

    with pytest.raises(KeyError):
        await Strangers(read).message(MESSAGE)


async def test_a_slow_message_is_returned(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "QUICK_S", 0.01)
    monkeypatch.setattr(strangers, "MOST_SLOW", 1)
    waiting = Strangers(line.read)
    task = begin(waiting)
    # When the second is refused, the first has been slow for as long.
    assert isinstance(await end_of(begin(waiting)), QueueFull)
    line.reading[0].set_result(MESSAGE)
    assert await end_of(task) == MESSAGE


async def test_only_a_few_may_be_slow(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "QUICK_S", 0.01)
    monkeypatch.setattr(strangers, "PATIENCE_S", LIMIT_S)
    waiting = Strangers(line.read)
    first = [begin(waiting) for _ in range(MOST_SLOW)]
    refused = await end_of(begin(waiting))
    assert isinstance(refused, QueueFull)
    assert not any(task.done() for task in first)
    # One that ends makes room, however it ends.
    for task, ends in zip(first, (line.reading[0].cancel, first[1].cancel), strict=False):
        ends()
        with pytest.raises(asyncio.CancelledError):
            await task
    last = [begin(waiting) for _ in range(3)]
    assert isinstance(await end_of(last[2]), QueueFull)
    assert not any(task.done() for task in last[:2])
    for reading in line.reading:
        if not reading.done():
            reading.set_result(MESSAGE)
    assert [await end_of(task) for task in (*first[2:], *last[:2])] == [MESSAGE] * MOST_SLOW


async def test_no_message_is_waited_for_without_end(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "QUICK_S", 0.01)
    monkeypatch.setattr(strangers, "PATIENCE_S", 0.02)
    waiting = Strangers(line.read)
    assert isinstance(await end_of(begin(waiting)), ExpiredInQueue)
    assert not line.reading[0].cancelled()
    line.reading[0].set_exception(ConnectionError())  # as a call ends; nobody asks
