"""Claims of workers that are lost, stopped or late."""

from collections.abc import Iterator
from functools import partial

import pytest
import redis

from dispatch import keys, work_queue
from dispatch.job_store import JobStore
from dispatch.jobs import CALL_PRIORITIES, Claim, Completion
from dispatch.work_queue import LEASE_S, WorkQueue
from tests.dispatch_steps import (
    MODEL,
    answer,
    assert_drained,
    enqueue,
    queue_for,
    submission,
    take,
    totals,
)
from tests.redis_server import RedisServer


@pytest.fixture
def other(redis_server: RedisServer) -> Iterator[WorkQueue]:
    with queue_for(redis_server, "worker-2") as queue:
        yield queue


def let_leases_end(server: RedisServer, claims: list[Claim], *, of: str) -> None:
    """Set the idle time of claims back, as if their worker had been silent that long."""
    with server.client() as client:
        for claim in claims:
            stream = keys.jobs(MODEL, claim.priority)
            idle_ms = round(LEASE_S * 1000) + 1
            client.xclaim(
                *(stream, keys.GROUP, of, 0, [claim.entry_id]),
                idle=idle_ms,
                retrycount=claim.attempt,
                justid=True,
            )


def reclaim_as_settled(queue: WorkQueue, *, room: int = 8) -> list[Claim]:
    """Reclaim like a worker that has been connected for longer than a lease."""
    queue._line._reachable_since -= LEASE_S + 1
    return queue.reclaim(room=room, take_suspect=True).claims


async def test_jobs_of_a_lost_worker_are_reclaimed_one_at_a_time_and_counted(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, *(submission(bytes([i])) for i in range(3)))
    let_leases_end(redis_server, take(queue), of="worker-1")
    seen = []
    while claims := reclaim_as_settled(other):
        (claim,) = claims
        assert claim.attempt == 2
        assert claim.is_suspect
        seen.append(claim.image)
        assert len(other.complete([answer(claim)])) == 1
    assert seen == [b"\x00", b"\x01", b"\x02"]
    assert_drained(redis_server)


async def test_a_live_claim_is_not_reclaimed(
    store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    claims = take(queue)
    assert reclaim_as_settled(other) == []
    assert queue.renew(claims) == []


async def test_a_look_renews_a_lease_once_it_is_no_longer_fresh_and_the_keeper_always(
    redis_server: RedisServer,
    store: JobStore,
    queue: WorkQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await enqueue(store, submission())
    (claim,) = take(queue)
    with redis_server.client() as client:
        stale_ms = round(LEASE_S * 1000) - 1
        for renew in (queue.renew, partial(queue.complete_and_renew, ())):
            set_idle(client, claim, queue.worker, stale_ms)
            renew([claim])
            assert idle(client, claim) < stale_ms
        # A look leaves a fresh one alone; how much time passes is not in the hands of the test.
        monkeypatch.setattr(work_queue, "FRESH_LEASE_MS", stale_ms)
        set_idle(client, claim, queue.worker, stale_ms // 2)
        assert queue.complete_and_renew((), [claim]) == ([], [])
        assert idle(client, claim) >= stale_ms // 2
        queue.renew([claim])
        assert idle(client, claim) < stale_ms // 2


def set_idle(client: redis.Redis, claim: Claim, worker: str, idle_ms: int) -> None:
    names = (keys.jobs(MODEL, claim.priority), keys.GROUP, worker)
    client.xclaim(*names, 0, [claim.entry_id], idle=idle_ms, justid=True)


def idle(client: redis.Redis, claim: Claim) -> int:
    """Return how old the lease of a claim is, milliseconds."""
    (pending,) = client.xpending_range(keys.jobs(MODEL, claim.priority), keys.GROUP, "-", "+", 1)
    return int(pending["time_since_delivered"])


async def test_nothing_is_judged_within_a_lease_of_connecting(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    reclaimed = other.reclaim(room=8, take_suspect=True)
    assert reclaimed.claims == []
    assert not reclaimed.has_suspects


async def test_suspects_are_announced_before_they_are_taken(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    other._line._reachable_since -= LEASE_S + 1
    reclaimed = other.reclaim(room=8, take_suspect=False)
    assert reclaimed.claims == []
    assert reclaimed.has_suspects


async def test_a_worker_whose_lease_was_taken_over_may_still_win(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    (slow,) = take(queue)
    let_leases_end(redis_server, [slow], of="worker-1")
    (taken,) = reclaim_as_settled(other)
    assert queue.renew([slow]) == [slow]
    queue.complete([answer(slow)])
    assert other.complete([answer(taken)]) == [Completion.TOO_LATE]
    assert totals(redis_server) == {"accepted": 1, "orphaned": 1}
    assert_drained(redis_server)


async def test_of_jobs_of_one_millisecond_only_the_one_that_is_over_is_lost(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, *(submission(priority=priority) for priority in CALL_PRIORITIES))
    claims = take(queue)
    assert len({claim.entry_id for claim in claims}) == 1  # admitted by one script
    over = claims[1]
    queue.complete([answer(over)])
    assert queue.renew(claims) == [over]
    assert queue.complete_and_renew((), claims) == ([], [over])
    queue.complete([answer(claim) for claim in claims])
    assert_drained(redis_server)


async def test_jobs_given_back_are_taken_at_once_without_counting_an_attempt(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, *(submission() for _ in range(3)))
    claims = take(queue)
    assert queue.give_back(claims) == 3
    assert queue.renew(claims) == claims
    taken = other.reclaim(room=2, take_suspect=False).claims
    assert [claim.attempt for claim in taken] == [1, 1]
    taken += other.reclaim(room=2, take_suspect=False).claims
    assert other.complete([answer(claim) for claim in taken]) == [Completion.ORPHANED] * 3
    assert_drained(redis_server)


async def test_a_suspect_given_back_is_taken_alone_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    suspects = reclaim_as_settled(other)
    assert other.give_back(suspects) == 1
    reclaimed = queue.reclaim(room=8, take_suspect=False)
    assert reclaimed.claims == []
    assert reclaimed.has_suspects
    (claim,) = reclaim_as_settled(queue)
    assert claim.attempt == 2


async def test_a_claim_that_its_worker_never_heard_of_comes_back_to_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    (claim,) = reclaim_as_settled(queue)
    assert claim.attempt == 1  # nobody was lost
