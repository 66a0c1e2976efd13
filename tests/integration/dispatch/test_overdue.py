"""Calls whose time is over end, also when neither their front-end nor a worker is there."""

import asyncio

import pytest

from dispatch import keys
from dispatch.job_store import Cancel, JobStore, QueueLimits
from dispatch.jobs import CALL_PRIORITIES, Completion, Outcome, Priority
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import (
    MODEL,
    answer,
    assert_drained,
    enqueue,
    submission,
    take,
    totals,
)
from tests.redis_server import RedisServer


async def sweep(store: JobStore, count: int) -> None:
    """Sweep until that many were ended: time passes in Redis alone."""
    async with asyncio.timeout(5):
        while count:
            count -= await store.end_overdue(MODEL, overdue_s=0)


async def test_calls_that_nobody_retired_are_swept_once_they_are_long_overdue(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    late = [submission(timeout_s=0, priority=priority) for priority in CALL_PRIORITIES]
    kept = submission()
    await enqueue(store, *late, kept)
    assert await store.end_overdue(MODEL) == 0  # a worker or their front-end may yet do it
    await sweep(store, len(late))
    assert totals(redis_server) == {"accepted": 4, "expired": 3}
    (claim,) = take(queue)
    assert claim.job.id == kept.job.id
    queue.complete([answer(claim)])
    assert_drained(redis_server)


@pytest.mark.usefixtures("queue")
async def test_a_call_that_was_swept_is_counted_once_though_its_front_end_is_back(
    redis_server: RedisServer, store: JobStore
) -> None:
    late = submission(timeout_s=0)
    await enqueue(store, late)
    await sweep(store, 1)
    await store.send([Cancel.of(late, Outcome.EXPIRED)])
    assert await store.end_overdue(MODEL, overdue_s=0) == 0
    assert totals(redis_server) == {"accepted": 1, "expired": 1}
    assert_drained(redis_server)


@pytest.mark.parametrize("is_claimed", [False, True])
async def test_a_call_that_was_swept_was_spared_if_no_worker_had_it(
    redis_server: RedisServer, queue: WorkQueue, *, is_claimed: bool
) -> None:
    spared: list[Outcome] = []
    async with JobStore(
        redis_server.url,
        "server-1",
        QueueLimits(jobs=4, size_bytes=1 << 20),
        on_spared=lambda _, outcome: spared.append(outcome),
    ) as store:
        await enqueue(store, submission(timeout_s=0))
        claims = take(queue) if is_claimed else []
        await sweep(store, 1)
    assert spared == ([] if is_claimed else [Outcome.EXPIRED])
    for claim in claims:
        assert queue.renew([claim]) == [claim]
        assert queue.complete([answer(claim)]) == [Completion.TOO_LATE]
    assert_drained(redis_server)


@pytest.mark.parametrize("has_group", [False, True])
async def test_an_entry_of_somebody_else_is_swept_and_counts_nowhere(
    redis_server: RedisServer, store: JobStore, *, has_group: bool
) -> None:
    with redis_server.client() as client:
        if has_group:
            client.xgroup_create(keys.jobs(MODEL, Priority.NORMAL), keys.GROUP, mkstream=True)
        for fields in ({"of": "somebody"}, {"job": b"\xff", "deadline": "1", "size": "9"}):
            client.xadd(keys.jobs(MODEL, Priority.NORMAL), fields)
        await enqueue(store, submission(timeout_s=0))
        await sweep(store, 3)
        assert client.xlen(keys.jobs(MODEL, Priority.NORMAL)) == 0
        assert client.hget(keys.load(MODEL), "bytes") == b"0"
    assert totals(redis_server) == {"accepted": 1, "expired": 1}
