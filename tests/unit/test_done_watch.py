"""Those who wait for an operation hear of its end, and of nothing else unless news were missed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown
from server import done_watch
from server.done_watch import DoneWatch

LIMIT_S = 5


class FakeStream:
    """News that a test writes; reading them waits for some, as Redis does."""

    def __init__(self) -> None:
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.opened = 0
        self.closed = asyncio.Event()
        self._news: asyncio.Queue[list[str] | DespachoError] = asyncio.Queue()

    async def open(self) -> None:
        await self.may_open.wait()
        self.opened += 1

    async def read(self) -> list[str]:
        news = await self._news.get()
        if isinstance(news, DespachoError):
            raise news
        return news

    async def aclose(self) -> None:
        self.closed.set()

    def end(self, *operation_ids: str) -> None:
        self._news.put_nowait(list(operation_ids))

    def break_with(self, error: DespachoError) -> None:
        self._news.put_nowait(error)


class House:
    """A watch over fake streams, one per model."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.streams: dict[str, FakeStream] = {}
        self.asked: list[str] = []
        self.watch = DoneWatch(self._stream_of, tasks)  # type: ignore[arg-type]

    def stream(self, model: str = "m") -> FakeStream:
        return self.streams.setdefault(model, FakeStream())

    def _stream_of(self, model: str) -> FakeStream:
        self.asked.append(model)
        return self.stream(model)


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        made = House(tasks)
        try:
            yield made
        finally:
            made.watch.stop()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(done_watch, "RETRY_PAUSE_S", 0)


async def test_an_end_wakes_all_who_wait_for_it_and_nobody_else() -> None:
    async with house() as here:
        await here.watch.watch("m")
        with (
            here.watch.expect("m", "1") as one,
            here.watch.expect("m", "1") as same,
            here.watch.expect("m", "2") as another,
            here.watch.expect("n", "1") as of_another_model,
        ):
            here.stream().end("1", "nobody waits for this one")
            await one.wait()
            assert same.is_set()
            assert not another.is_set()
            assert not of_another_model.is_set()
            here.stream().end("2")
            await another.wait()


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), OutcomeUnknown("cut")])
async def test_after_an_interruption_all_of_the_model_look_again(error: DespachoError) -> None:
    async with house() as here:
        await here.watch.watch("m")
        await here.watch.watch("n")
        stream = here.stream()
        with (
            here.watch.expect("m", "1") as one,
            here.watch.expect("m", "2") as two,
            here.watch.expect("n", "1") as of_another_model,
        ):
            stream.may_open.clear()
            stream.break_with(error)
            waits_again = asyncio.create_task(here.watch.watch("m"))
            for _ in range(10):
                await asyncio.sleep(0)
            # What would be looked at now could end before the news are read again.
            assert not one.is_set()
            stream.may_open.set()
            await one.wait()
            await waits_again
            assert two.is_set()
            assert stream.opened == 2
            assert not of_another_model.is_set()
            two.clear()
            stream.end("2")
            await two.wait()


async def test_watching_returns_once_the_news_are_read_and_no_earlier() -> None:
    async with house() as here:
        stream = here.stream()
        stream.may_open.clear()
        first, second = (asyncio.create_task(here.watch.watch("m")) for _ in range(2))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not first.done()
        assert not second.done()
        stream.may_open.set()
        await asyncio.gather(first, second)
        await here.watch.watch("m")
        assert here.asked == ["m"]


async def test_watching_waits_again_while_the_news_are_interrupted() -> None:
    async with house() as here:
        await here.watch.watch("m")
        stream = here.stream()
        stream.may_open.clear()
        stream.break_with(BrokerUnavailable("away"))
        for _ in range(10):
            await asyncio.sleep(0)
        late = asyncio.create_task(here.watch.watch("m"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not late.done()
        stream.may_open.set()
        await late


async def test_nothing_is_kept_of_those_who_have_stopped_waiting() -> None:
    async with house() as here:
        with here.watch.expect("m", "1"):
            with pytest.raises(ZeroDivisionError), here.watch.expect("m", "1"):
                raise ZeroDivisionError
            assert len(here.watch._waiting["m", "1"]) == 1
        assert here.watch._waiting == {}


async def test_stopping_closes_the_streams() -> None:
    async with house() as here:
        await here.watch.watch("m")
    assert here.stream().closed.is_set()


async def test_a_model_that_is_gone_is_watched_until_nobody_waits_for_it() -> None:
    async with house() as here:
        with here.watch.expect("m", "1") as one:
            await here.watch.watch("m")
            here.watch.watch_no_other([])
            here.stream().end("1")
            await one.wait()
        here.watch.watch_no_other(["m"])
        assert not here.stream().closed.is_set()
        here.watch.watch_no_other([])
        await here.stream().closed.wait()
        # It may come back.
        with here.watch.expect("m", "2") as two:
            await here.watch.watch("m")
            here.stream().end("2")
            await two.wait()
    assert here.asked == ["m", "m"]
