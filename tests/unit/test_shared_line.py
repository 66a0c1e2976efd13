"""Many callers, one connection: each gets its own replies, and none can break it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from dispatch import shared_line
from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown, QueueFull
from dispatch.scripts import Command
from dispatch.shared_line import SharedLine

LIMIT_S = 5


class FakeLine:
    """Answers each command with itself; holds or fails a round trip as told."""

    def __init__(self) -> None:
        self.trips: list[list[str]] = []
        self.sizes: list[int] = []
        self.failure: BaseException | None = None
        self.is_closed = False
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._began = asyncio.Event()

    async def exchange(self, commands: Sequence[Command], size_bytes: int) -> list[Any]:
        names = [str(command[0]) for command in commands]
        self.trips.append(names)
        self.sizes.append(size_bytes)
        self._began.set()
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        return [f"reply to {name}" for name in names]

    async def close(self) -> None:
        self.is_closed = True

    async def until_trips(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while len(self.trips) < count:
                self._began.clear()
                await self._began.wait()


class House:
    """A shared line that runs, over a fake one."""

    def __init__(self, most_calls: int, most_bytes: int) -> None:
        self.line = FakeLine()
        self.shared = SharedLine(
            self.line,  # type: ignore[arg-type]
            self.line.exchange,
            most_calls=most_calls,
            most_bytes=most_bytes,
        )
        self.task = asyncio.create_task(self.shared.run())

    def call(self, *names: str, size_bytes: int = 0) -> "asyncio.Task[list[Any]]":
        commands = [(name,) for name in names]
        return asyncio.create_task(self.shared.call(*commands, size_bytes=size_bytes))

    async def hold_the_first(self) -> "asyncio.Task[list[Any]]":
        """Let what comes from now on wait behind a round trip that is not answered."""
        self.line.is_open.clear()
        first = self.call("first")
        await self.line.until_trips(1)
        return first


@asynccontextmanager
async def house(most_calls: int = 64, most_bytes: int = 1000) -> AsyncIterator[House]:
    async with asyncio.timeout(LIMIT_S):
        made = House(most_calls, most_bytes)
        try:
            yield made
        finally:
            made.task.cancel()
            with suppress(asyncio.CancelledError):
                await made.task


async def settle() -> None:
    """Let tasks that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_calls_of_many_callers_share_a_round_trip_and_get_their_own_replies() -> None:
    async with house() as here:
        first = await here.hold_the_first()
        calls = [here.call(f"{i}a", f"{i}b", size_bytes=i) for i in range(5)]
        await settle()
        here.line.is_open.set()
        assert await first == ["reply to first"]
        assert await asyncio.gather(*calls) == [
            [f"reply to {i}a", f"reply to {i}b"] for i in range(5)
        ]
        assert here.line.trips[1:] == [[f"{i}{part}" for i in range(5) for part in "ab"]]
        assert here.line.sizes == [0, 10]


async def test_only_so_many_calls_go_together() -> None:
    async with house(most_calls=2) as here:
        await here.hold_the_first()
        calls = [here.call(str(i)) for i in range(5)]
        await settle()
        here.line.is_open.set()
        await asyncio.gather(*calls)
        assert here.line.trips[1:] == [["0", "1"], ["2", "3"], ["4"]]


async def test_only_so_many_bytes_go_together() -> None:
    async with house(most_bytes=100) as here:
        await here.hold_the_first()
        calls = [here.call(str(i), size_bytes=60) for i in range(3)]
        await settle()
        here.line.is_open.set()
        await asyncio.gather(*calls)
        assert here.line.trips[1:] == [["0", "1"], ["2"]]


async def test_what_a_caller_asked_who_has_gone_is_not_sent() -> None:
    async with house() as here:
        first = await here.hold_the_first()
        leaver, stays = here.call("of the leaver", size_bytes=7), here.call("stays")
        await settle()
        leaver.cancel()
        await settle()
        here.line.is_open.set()
        await asyncio.gather(first, stays)
        assert here.line.trips[1:] == [["stays"]]
        assert here.line.sizes[1:] == [0]


async def test_a_caller_who_leaves_after_it_was_sent_takes_nobodys_reply() -> None:
    async with house() as here:
        here.line.is_open.clear()
        leaver, beside = here.call("of the leaver"), here.call("beside")
        await here.line.until_trips(1)
        leaver.cancel()
        await settle()
        here.line.is_open.set()
        assert await beside == ["reply to beside"]
        assert here.line.trips == [["of the leaver", "beside"]]


async def test_only_so_many_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_line, "MOST_WAITING", 2)
    async with house() as here:
        await here.hold_the_first()
        waiting = [here.call("1"), here.call("2")]
        await settle()
        with pytest.raises(QueueFull) as caught:
            await here.call("3")
        assert caught.value.subject == "server/jobs"
        here.line.is_open.set()
        await asyncio.gather(*waiting)
        assert await here.call("4") == ["reply to 4"]


@pytest.mark.parametrize("failure", [BrokerUnavailable("away"), OutcomeUnknown("cut")])
async def test_what_waits_behind_a_broken_round_trip_was_not_done(failure: DespachoError) -> None:
    async with house() as here:
        first = await here.hold_the_first()
        behind = [here.call(str(i), size_bytes=10) for i in range(3)]
        await settle()
        here.line.failure = failure
        here.line.is_open.set()
        with pytest.raises(type(failure)):
            await first
        outcomes = await asyncio.gather(*behind, return_exceptions=True)
        assert [type(each) for each in outcomes] == [BrokerUnavailable] * 3
        assert here.line.trips == [["first"]]
        here.line.failure = None
        assert await here.call("again") == ["reply to again"]


async def test_a_round_trip_that_is_refused_by_itself_does_not_refuse_what_waits() -> None:
    async with house() as here:
        first = await here.hold_the_first()
        behind = here.call("behind")
        await settle()
        here.line.failure = QueueFull("disk", "full")
        here.line.is_open.set()
        with pytest.raises(QueueFull):
            await first
        with pytest.raises(QueueFull):
            await behind
        assert here.line.trips == [["first"], ["behind"]]


async def test_closing_cancels_what_waits() -> None:
    async with house() as here:
        await here.hold_the_first()
        behind = here.call("behind")
        await settle()
        await here.shared.aclose()
        await asyncio.wait({behind}, timeout=LIMIT_S / 2)
        assert behind.cancelled()
        assert here.line.is_closed


async def test_ending_the_run_cancels_what_was_sent() -> None:
    async with house() as here:
        first = await here.hold_the_first()
        here.task.cancel()
        await asyncio.wait({first}, timeout=LIMIT_S / 2)
        assert first.cancelled()


class Traced(bytes):
    """Bytes that can be counted while they live."""

    @classmethod
    def alive(cls) -> int:
        return sum(isinstance(each, cls) for each in gc.get_objects())


async def test_a_round_trip_that_fails_leaves_its_commands_to_nobody() -> None:
    gc.collect()
    gc.disable()  # collections are seldom in a front-end, and images large
    try:
        async with house() as made:
            for failure in (BrokerUnavailable, OutcomeUnknown, BrokerUnavailable):
                made.line.failure = failure("away")
                # `pytest.raises` would keep what was raised, and the bytes with it.
                with suppress(failure):
                    await made.shared.call(("SET", "key", Traced(b"x")))
            made.line.failure = None
            assert len(made.line.trips) == 3
            await asyncio.sleep(0)  # the loop lets go of what it has just run
            assert Traced.alive() == 0
    finally:
        gc.enable()


async def test_what_a_caller_asked_who_has_gone_stays_no_longer_than_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_line, "MOST_WAITING", 1)
    async with house() as here:
        first = await here.hold_the_first()
        leaver = asyncio.create_task(here.shared.call(("SET", "key", Traced(b"x"))))
        await settle()
        assert Traced.alive() == 1
        leaver.cancel()
        del leaver
        await settle()
        assert Traced.alive() == 0
        in_its_place = here.call("in its place")
        await settle()
        here.line.is_open.set()
        await asyncio.gather(first, in_its_place)
