"""Looks at the system: which of them rates are counted over."""

import asyncio
from collections.abc import Sequence

import pytest

from despacho.job.v1.job_pb2 import FrontEndCard
from dispatch.errors import BrokerUnavailable
from server import stats
from server.stats import Stats

LIMIT_S = 10.0


class Clock:
    """Shows what it is told."""

    def __init__(self, now_s: float) -> None:
        self.now_s = abs(now_s)

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s


class Store:
    """Is looked at once at each of these times, and away at those that are negative."""

    def __init__(self, clock: Clock, times_s: Sequence[float]) -> None:
        self._clock = clock
        self._left = [*times_s]
        self.all_seen = asyncio.Event()

    async def announce(self, card: FrontEndCard) -> int:
        del card
        return await asyncio.Future()

    async def leave(self, server_id: str) -> None:
        pass

    async def front_ends(self) -> dict[str, FrontEndCard]:
        if not self._left:
            self.all_seen.set()
            await asyncio.Future()
        is_away = self._left.pop(0) < 0
        # The time is taken first.
        self._clock.now_s = abs(self._left[0]) if self._left else self._clock.now_s
        if is_away:
            raise BrokerUnavailable("away")
        return {}

    async def model(self, model: str) -> None:
        raise AssertionError(model)


async def seen_at(monkeypatch: pytest.MonkeyPatch, *times_s: float) -> list[float]:
    """Return of when the looks are that are left after looking at these times."""
    clock = Clock(times_s[0])
    store = Store(clock, times_s)
    monkeypatch.setattr(stats, "PERIOD_S", 0)
    monkeypatch.setattr(stats, "time", clock)
    watched = Stats(store, list, "a")
    with watched.watched():
        running = asyncio.create_task(watched.run())
        await asyncio.wait_for(store.all_seen.wait(), LIMIT_S)
        samples = await watched.samples()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return [sample.at_s for sample in samples]


EACH_SECOND = [1.01 * second for second in range(30)]


async def test_rates_are_those_of_ten_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await seen_at(monkeypatch, *EACH_SECOND) == EACH_SECOND[-11:]


async def test_rates_do_not_include_a_time_before_redis_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = [-second for second in range(10, 24)]
    assert await seen_at(monkeypatch, 7, 8, 9, *away, 24, 25, 26) == [24, 25, 26]


async def test_the_first_look_after_redis_was_away_is_not_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await seen_at(monkeypatch, 7, 8, 9, -16, 24) == [9, 24]


async def test_a_short_absence_of_redis_is_part_of_the_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await seen_at(monkeypatch, 7, 8, 9, -10, -11, 12) == [7, 8, 9, 12]
