"""From the queue to the reply, each once."""

import random
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from dispatch import claiming, keys, leftovers
from dispatch.job_store import JobStore, size_bytes
from dispatch.jobs import (
    CALL_PRIORITIES,
    Completion,
    Priority,
    Room,
)
from dispatch.scripts import Command
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, answer, assert_drained, enqueue, submission, take, totals
from tests.redis_server import RedisServer


async def test_a_job_goes_in_and_its_reply_comes_out(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission(b"\x00\xff image")
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        assert await enqueue(store, sent) == [None]
        (claim,) = take(queue)
        assert claim.job == sent.job
        assert claim.image == sent.image
        assert claim.attempt == 1
        assert claim.size_bytes == size_bytes(sent)
        assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
        (reply,) = await replies.read()
    assert reply.job_id == sent.job.id
    assert totals(redis_server) == {"accepted": 1, "completed": 1}
    assert_drained(redis_server)


async def test_higher_priorities_are_claimed_first(store: JobStore, queue: WorkQueue) -> None:
    low, normal, high = (
        submission(priority=p) for p in (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    )
    await enqueue(store, low, normal, high)
    claims = take(queue)
    assert [claim.priority for claim in claims] == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


async def test_claims_stop_at_the_room_in_jobs_and_in_bytes(
    store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, *(submission(b"x" * 5000) for _ in range(10)))
    assert len(take(queue, 3)) == 3
    assert len(queue.claim(CALL_PRIORITIES, Room(7, 1), block=False)) == 4  # one step
    assert len(take(queue, 0)) == 0


async def test_who_waits_takes_many_small_jobs_at_a_time_and_few_large_ones(
    redis_server: RedisServer,
    store: JobStore,
    queue: WorkQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leftovers, "FRESH_S", 60)
    room = Room(10, 20_000)
    found = [len(queue.claim(CALL_PRIORITIES, room, block=True))]
    for image in (b"x", b"x", b"x" * 5000, b"x" * 5000):
        await enqueue(store, *(submission(image) for _ in range(10)))
        # The second one does not wait, if there may be more.
        found += [len(queue.claim(CALL_PRIORITIES, room, block=True, at_once=10)) for _ in range(2)]
        with redis_server.client() as client:
            client.flushall()
        queue.open()
    # Few, as nothing is known; many; as many as if they were small; few.
    assert found == [0, 4, 6, 10, 0, 10, 0, 4, 4]


async def test_who_waits_takes_no_more_at_once_than_was_asked_for(
    store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "FRESH_S", 60)
    room = Room(16, 1 << 30)
    assert queue.claim(CALL_PRIORITIES, room, block=True) == []
    await enqueue(store, *(submission() for _ in range(8)))
    assert len(queue.claim(CALL_PRIORITIES, room, block=True, at_once=3)) == 3
    # There may be more: that is no longer waiting.
    assert len(queue.claim(CALL_PRIORITIES, room, block=True, at_once=3)) == 5


async def test_who_took_the_only_job_knows_it_and_waits_for_the_next_without_asking(
    store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "FRESH_S", 60)
    room = Room(16, 1 << 30)
    assert queue.claim(CALL_PRIORITIES, room, block=True) == []

    def asked(*_: object) -> None:
        raise AssertionError("it was known that nothing is left")

    monkeypatch.setattr(queue, "_waiting", asked)
    for _ in range(2):
        await enqueue(store, submission())
        assert len(queue.claim(CALL_PRIORITIES, room, block=True, at_once=1)) == 1
    assert queue.claim(CALL_PRIORITIES, room, block=True, at_once=1) == []


def suppose_as_often_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "FRESH_S", 60)
    monkeypatch.setattr(random, "randint", lambda _, most: most)


async def take_one_by_one(store: JobStore, queue: WorkQueue, room: Room) -> None:
    """Let a worker learn that nothing is left by those who took a job."""
    for _ in range(12):
        await enqueue(store, submission())
        (claim,) = queue.claim(CALL_PRIORITIES, room, block=True)
        queue.complete([answer(claim)])


async def test_what_is_left_against_expectation_is_taken_without_waiting(
    store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    suppose_as_often_as_may_be(monkeypatch)
    room, asked, counting = Room(16, 1 << 30), [], claiming.counting

    def counted(streams: Sequence[str]) -> Command:
        asked.append(streams)
        return counting(streams)

    monkeypatch.setattr(claiming, "counting", counted)
    await take_one_by_one(store, queue, room)
    # Before the first one, and then after none, one, two and three that nobody asked about.
    assert len(asked) == 5
    await enqueue(store, *(submission() for _ in range(10)))
    found = [len(queue.claim(CALL_PRIORITIES, room, block=True)) for _ in range(5)]
    # Three more that nobody asks about, one that is asked about, and then all there are.
    assert found == [1, 1, 1, 1, 6]


async def test_priorities_that_come_together_are_mixed_in_one_claim_only(
    store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    suppose_as_often_as_may_be(monkeypatch)
    room = Room(16, 1 << 30)
    await take_one_by_one(store, queue, room)
    await enqueue(store, *(submission(priority=each) for each in 3 * CALL_PRIORITIES))
    first, second = (queue.claim(CALL_PRIORITIES, room, block=True) for _ in range(2))
    assert [claim.priority for claim in first] == list(CALL_PRIORITIES)
    assert [claim.priority for claim in second] == [
        each for each in CALL_PRIORITIES for _ in range(2)
    ]


@pytest.mark.parametrize("fresh_s", [0, 60])
async def test_the_order_of_priorities_holds_after_a_claim_that_took_all(
    store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch, fresh_s: float
) -> None:
    monkeypatch.setattr(leftovers, "FRESH_S", fresh_s)
    room = Room(1, 1 << 30)
    await enqueue(store, submission())
    assert len(queue.claim(CALL_PRIORITIES, Room(2, 1 << 30), block=True, at_once=2)) == 1
    priorities = (Priority.LOW, Priority.LOW, Priority.NORMAL, Priority.HIGH)
    await enqueue(store, *(submission(priority=priority) for priority in priorities))
    first = queue.claim(CALL_PRIORITIES, room, block=True)
    if fresh_s:
        # One of each, as just after an empty queue all streams are read at once.
        assert [claim.priority for claim in first] == [Priority.HIGH, Priority.NORMAL, Priority.LOW]
    else:
        assert [claim.priority for claim in first] == [Priority.HIGH]
    await enqueue(store, submission(priority=Priority.HIGH))
    (second,) = queue.claim(CALL_PRIORITIES, room, block=True)
    assert second.priority is Priority.HIGH


async def test_claimed_jobs_that_were_deleted_by_hand_hide_no_others_and_open_no_gates(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, *(submission() for _ in range(3)))
    stream = keys.jobs(MODEL, Priority.NORMAL)
    with redis_server.client() as client:
        for claim in take(queue):
            client.xdel(stream, claim.entry_id)
    # Redis takes a count below nothing for no limit.
    await enqueue(store, *(submission() for _ in range(2)))
    assert take(queue, 1) == []
    assert len(queue.claim(CALL_PRIORITIES, Room(1, 1 << 30), block=True)) == 1
    assert len(queue.claim(CALL_PRIORITIES, Room(1, 1 << 30), block=True)) == 1


async def test_missing_jobs_are_told_from_waiting_and_claimed_ones(
    store: JobStore, queue: WorkQueue
) -> None:
    claimed, waiting, retired, unheard = (submission() for _ in range(4))
    await enqueue(store, retired, claimed)
    first, _ = take(queue, 2)
    queue.complete([answer(first)])
    await enqueue(store, waiting)
    ids = [each.job.id for each in (claimed, waiting, retired, unheard)]
    assert await store.missing(MODEL, ids) == [retired.job.id, unheard.job.id]


async def test_a_lost_job_can_be_enqueued_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await enqueue(store, sent)
    queue.complete([answer(claim) for claim in take(queue)])
    await store.forget_enqueue(MODEL, sent.job.id)
    await enqueue(store, sent)
    assert len(take(queue)) == 1
    assert totals(redis_server)["accepted"] == 2
