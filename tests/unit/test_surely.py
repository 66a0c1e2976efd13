"""What may or may not have happened is repeated until that is known, or the time is over."""

import asyncio

import pytest

from dispatch.errors import BrokerUnavailable, ExpiredInQueue, OutcomeUnknown, QueueFull
from dispatch.link import Link
from server import surely as module
from server.surely import surely


class Broker:
    """Fails as `failures` says, one a time; then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


class Clock:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic(self) -> float:
        return self._now_s

    async def sleep(self, pause_s: float) -> None:
        self._now_s += pause_s


@pytest.fixture
def link() -> Link:
    link = Link()
    link.restored()
    return link


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)


async def test_an_unknown_outcome_is_asked_for_again_though_the_broker_is_away(link: Link) -> None:
    broker = Broker(OutcomeUnknown("cut"), BrokerUnavailable("away"), OutcomeUnknown("cut"))
    assert await surely(link, broker.ask, timeout_s=30) == "answer"
    assert broker.asked == 4


@pytest.mark.parametrize("failure", [BrokerUnavailable("away"), QueueFull("jobs", "full")])
async def test_what_surely_did_not_happen_is_told_at_once(link: Link, failure: Exception) -> None:
    broker = Broker(failure)
    with pytest.raises(type(failure)):
        await surely(link, broker.ask, timeout_s=30)
    assert broker.asked == 1


async def test_an_ask_that_hangs_ends_with_the_time_of_the_caller(link: Link) -> None:
    was_cancelled = False

    async def hang() -> None:
        nonlocal was_cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    async with asyncio.timeout(5):
        with pytest.raises(ExpiredInQueue):
            await surely(link, hang, timeout_s=0.01)
    assert was_cancelled


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_without_time_left_nothing_is_waited_for(link: Link, timeout_s: float) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(ExpiredInQueue):
            await surely(link, asyncio.Event().wait, timeout_s=timeout_s)


async def test_an_ask_that_hangs_after_a_broken_one_is_unavailable(link: Link) -> None:
    is_cut = True

    async def ask() -> None:
        nonlocal is_cut
        if is_cut:
            is_cut = False
            raise OutcomeUnknown("cut")
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        with pytest.raises(BrokerUnavailable):
            await surely(link, ask, timeout_s=0.05)


async def test_what_is_never_known_is_unavailable_when_the_time_is_over(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "PAUSE_S", 1)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    broker = Broker(*(OutcomeUnknown("cut") for _ in range(1000)))
    with pytest.raises(BrokerUnavailable):
        await surely(link, broker.ask, timeout_s=30)
    assert broker.asked == 30


async def test_while_the_link_is_down_nothing_is_asked(link: Link) -> None:
    link.lost()
    broker = Broker()
    with pytest.raises(BrokerUnavailable):
        await surely(link, broker.ask, timeout_s=30)
    assert broker.asked == 0
