"""Cancelling and completing, each once, in any order."""

import time
from collections.abc import Callable
from contextlib import aclosing

import pytest

from dispatch import keys
from dispatch.errors import BrokerUnavailable
from dispatch.job_store import Cancel, Enqueue, JobStore, QueueLimits
from dispatch.jobs import (
    Completion,
    Outcome,
)
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, answer, assert_drained, enqueue, submission, take, totals
from tests.redis_server import RedisServer


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.EXPIRED])
async def test_cancelling_a_waiting_job_removes_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, outcome: Outcome
) -> None:
    sent = submission()
    assert await store.send([Enqueue(sent), Cancel.of(sent, outcome)]) == [None, None]
    assert take(queue) == []
    assert totals(redis_server) == {"accepted": 1, outcome.value: 1}
    assert_drained(redis_server)


async def test_a_job_can_be_cancelled_after_its_deadline(
    redis_server: RedisServer, store: JobStore
) -> None:
    sent = submission(timeout_s=0)
    await enqueue(store, sent)
    with redis_server.client() as client:
        assert client.pttl(keys.job(MODEL, sent.job.id)) > 1000
    await store.send([Cancel.of(sent, Outcome.EXPIRED)])
    assert totals(redis_server) == {"accepted": 1, "expired": 1}


async def test_cancelling_a_claimed_job_makes_its_completion_a_no_op(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await enqueue(store, sent)
    (claim,) = take(queue)
    await store.send([Cancel.of(sent, Outcome.CANCELLED)])
    assert queue.renew([claim]) == [claim]
    assert queue.complete([answer(claim)]) == [Completion.TOO_LATE]
    assert totals(redis_server) == {"accepted": 1, "cancelled": 1}
    assert_drained(redis_server)


async def test_a_late_enqueue_of_a_cancelled_job_admits_nothing(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await store.send([Cancel.of(sent, Outcome.CANCELLED), Enqueue(sent)])
    assert take(queue) == []
    assert totals(redis_server) == {}


async def test_cancelling_twice_counts_once(redis_server: RedisServer, store: JobStore) -> None:
    sent = submission()
    await store.send([Enqueue(sent), *[Cancel.of(sent, Outcome.CANCELLED)] * 2])
    assert totals(redis_server) == {"accepted": 1, "cancelled": 1}


def has_too_few_replicas(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)


def cannot_write_its_file(server: RedisServer) -> None:
    # To Redis it is all the same why its last snapshot failed; of a full disk it says no other.
    (server.folder / "dump.rdb").mkdir()
    limit = time.monotonic() + 20
    with server.client() as client:
        client.config_set("save", "3600 1")
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            assert time.monotonic() < limit
            time.sleep(0.01)


def takes_writes(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("min-replicas-to-write", 0)
        client.config_set("save", "")


@pytest.mark.parametrize("refuse_writes", [has_too_few_replicas, cannot_write_its_file])
async def test_a_cancel_is_told_when_redis_takes_no_writes(
    own_redis: RedisServer, refuse_writes: Callable[[RedisServer], None]
) -> None:
    waiting = submission()
    async with JobStore(own_redis.url, "server-1", QueueLimits(10, 100_000)) as store:
        await enqueue(store, waiting)
        refuse_writes(own_redis)
        cancel = Cancel.of(waiting, Outcome.CANCELLED)
        # Another one is refused as well, and no more than that.
        refusals = await store.send([Enqueue(submission()), cancel])
        assert [type(refusal) for refusal in refusals] == [BrokerUnavailable] * 2
        takes_writes(own_redis)
        assert await store.send([cancel]) == [None]
    assert totals(own_redis) == {"accepted": 1, "cancelled": 1}


async def test_completing_twice_publishes_once(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        await enqueue(store, submission())
        (claim,) = take(queue)
        assert queue.complete([answer(claim), answer(claim)]) == [
            Completion.PUBLISHED,
            Completion.TOO_LATE,
        ]
        assert len(await replies.read()) == 1
    assert_drained(redis_server)


async def test_a_reply_to_a_front_end_that_is_gone_is_counted_as_orphaned(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission())
    assert queue.complete([answer(claim) for claim in take(queue)]) == [Completion.ORPHANED]
    assert totals(redis_server) == {"accepted": 1, "orphaned": 1}
    assert_drained(redis_server)
