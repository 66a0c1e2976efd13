"""How much a caller may use, by a clock that the test moves."""

from collections.abc import AsyncIterator

import pytest

from dispatch.errors import RateLimited
from server.quota import Limits, Quota, Visit


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def taken(quota: Quota) -> int:
    """Return how many requests there are now, and use them up."""
    count = 0
    try:
        while count < 1000:
            quota.take()
            count += 1
    except RateLimited:
        pass
    return count


def test_without_limits_there_is_no_end() -> None:
    quota = Quota("camera", Limits(), Clock())
    quota.charge(10_000)
    assert taken(quota) == 1000


def test_a_second_is_saved_up_and_no_more() -> None:
    clock = Clock()
    quota = Quota("camera", Limits(requests_per_s=10), clock)
    assert taken(quota) == 10
    clock.s += 0.5
    assert taken(quota) == 5
    clock.s += 3600
    assert taken(quota) == 10


def test_a_rate_below_one_lets_one_in_at_a_time() -> None:
    clock = Clock()
    quota = Quota("camera", Limits(requests_per_s=0.1), clock)
    assert taken(quota) == 1
    with pytest.raises(RateLimited) as caught:
        quota.take()
    assert caught.value.retry_after_s == pytest.approx(10)
    clock.s += 10
    assert taken(quota) == 1


def test_what_was_served_on_credit_is_paid_back_first() -> None:
    clock = Clock()
    quota = Quota("camera", Limits(requests_per_s=10), clock)
    quota.charge(30)
    with pytest.raises(RateLimited) as caught:
        quota.take()
    assert caught.value.retry_after_s == pytest.approx(2.1)
    clock.s += 2.1 + 1e-6
    assert taken(quota) == 1


def test_the_hint_is_long_enough() -> None:
    clock = Clock()
    quota = Quota("camera", Limits(requests_per_s=7), clock)
    taken(quota)
    for _ in range(100):
        with pytest.raises(RateLimited) as caught:
            quota.take()
        clock.s += caught.value.retry_after_s + 1e-9
        assert taken(quota) == 1


def test_room_is_counted_up_and_down() -> None:
    quota = Quota("camera", Limits(max_in_flight=2), Clock())
    for _ in range(2):
        quota.check_room()
        quota.enter()
    with pytest.raises(RateLimited):
        quota.check_room()
    quota.leave()
    quota.check_room()


def test_limits_that_are_lowered_hold_for_what_is_in_progress() -> None:
    quota = Quota("camera", Limits(), Clock())
    quota.enter()
    quota.enter()
    quota.limits = Limits(max_in_flight=1)
    quota.leave()
    with pytest.raises(RateLimited):
        quota.check_room()


@pytest.mark.parametrize("images_per_message", [1, 3])
async def test_each_image_of_a_stream_is_paid_for_once(images_per_message: int) -> None:
    quota = Quota("camera", Limits(requests_per_s=100), Clock())
    images = 0

    async def messages() -> AsyncIterator[None]:
        for _ in range(10):
            yield None

    quota.take()  # for the call
    visit = Visit(quota, lambda: images)
    async for _ in visit.paced(messages()):
        images += images_per_message
    visit.end()
    assert taken(quota) == 100 - images
