"""Several pieces of work at once: results, failures, and a caller that goes away."""

import asyncio
import gc
from contextlib import suppress

import pytest

from server.together import all_of
from tests.front_end import LIMIT_S


class Work:
    """Waits for ever; may fail when it is cancelled."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.has_begun = asyncio.Event()
        self.has_ended = asyncio.Event()

    async def run(self) -> int:
        self.has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.has_ended.set()
            if self.failure is not None:
                raise self.failure
        return 0


async def number(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fail() -> int:
    raise LookupError


async def test_the_results_come_in_the_order_of_the_works() -> None:
    assert await all_of(number(each) for each in (3, 1, 2)) == [3, 1, 2]


async def test_a_failure_ends_the_others_and_is_raised() -> None:
    waiting = Work()
    with pytest.raises(LookupError):
        await all_of([waiting.run(), fail(), number(1)])
    assert waiting.has_ended.is_set()


async def test_a_caller_that_goes_away_cancels_all() -> None:
    works = [Work(), Work()]
    task = asyncio.create_task(all_of(each.run() for each in works))
    for each in works:
        await each.has_begun.wait()
    task.cancel()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.wait([task])
    assert task.cancelled()
    assert all(each.has_ended.is_set() for each in works)


async def test_a_cancellation_is_not_forgotten_when_one_fails_in_the_same_moment() -> None:
    work = Work(LookupError())
    task = asyncio.create_task(all_of([work.run()]))
    await work.has_begun.wait()
    task.cancel()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_what_was_raised_is_forgotten_with_the_call() -> None:
    class Failure(Exception):
        pass

    async def fail_so() -> int:
        raise Failure

    gc.collect()
    gc.disable()
    try:
        # `pytest.raises` would keep what was raised.
        with suppress(Failure):
            await all_of([fail_so(), Work().run()])
        await asyncio.sleep(0)  # the loop lets go of what it has just run
        assert not [each for each in gc.get_objects() if isinstance(each, Failure)]
    finally:
        gc.enable()
