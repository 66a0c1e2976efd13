"""What is admitted, what is refused, and that asking again changes nothing."""

from contextlib import aclosing

import pytest

from despacho.job.v1.job_pb2 import ModelCard, WorkerCard
from dispatch import keys
from dispatch.errors import BrokerUnavailable, QueueFull
from dispatch.job_store import Cancel, Enqueue, JobStore, QueueLimits, size_bytes
from dispatch.jobs import (
    Completion,
    Outcome,
    Priority,
)
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, answer, assert_drained, enqueue, submission, take, totals
from tests.redis_server import RedisServer


async def test_a_resent_enqueue_admits_once(redis_server: RedisServer, store: JobStore) -> None:
    sent = submission()
    assert await enqueue(store, sent, sent) == [None, None]
    assert await enqueue(store, sent) == [None]
    assert totals(redis_server) == {"accepted": 1}


async def test_a_resent_enqueue_after_the_reply_admits_nothing(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await enqueue(store, sent)
    queue.complete([answer(claim) for claim in take(queue)])
    assert await enqueue(store, sent) == [None]
    assert take(queue) == []
    assert_drained(redis_server)


async def test_jobs_beyond_the_limit_are_refused(store: JobStore) -> None:
    outcomes = await enqueue(store, *(submission() for _ in range(12)))
    assert outcomes[:10] == [None] * 10
    assert [type(outcome) for outcome in outcomes[10:]] == [QueueFull, QueueFull]


async def test_bytes_beyond_the_limit_are_refused(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    outcomes = await enqueue(store, *(submission(b"x" * 40_000) for _ in range(3)))
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), QueueFull]
    queue.complete([answer(claim) for claim in take(queue)])
    # One that is larger than the limit is admitted alone rather than never.
    assert await enqueue(store, submission(b"x" * 200_000)) == [None]
    queue.complete([answer(claim) for claim in take(queue)])
    assert_drained(redis_server)


async def test_bytes_that_a_deleted_stream_left_in_the_count_take_no_room(
    redis_server: RedisServer, store: JobStore
) -> None:
    await enqueue(store, submission(b"x" * 90_000))
    with redis_server.client() as client:
        client.delete(*keys.call_streams(MODEL))
        small = [submission(), submission()]
        assert await enqueue(store, *small) == [None, None]
        assert int(client.hget(keys.load(MODEL), "bytes")) == sum(map(size_bytes, small))


async def test_full_memory_refuses_jobs_and_lets_claimed_ones_end(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        await enqueue(store, submission())
        (claim,) = take(queue)
        with redis_server.client() as client:
            before = client.config_get("maxmemory")["maxmemory"]
            client.config_set("maxmemory", 1)
            try:
                (refusal,) = await enqueue(store, submission())
                assert isinstance(refusal, QueueFull)
                queue.announce(WorkerCard(worker="w"), ModelCard(name=MODEL), has_changed=False)
                assert queue.renew([claim]) == []
                assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
                assert len(await replies.read()) == 1
            finally:
                client.config_set("maxmemory", before)
    assert_drained(redis_server)


async def test_each_job_of_a_batch_is_judged_for_itself(
    redis_server: RedisServer, store: JobStore
) -> None:
    known = [submission(b"x" * 1000) for _ in range(7)]
    assert await enqueue(store, *known) == [None] * 7
    too_large, small, last, one_too_many = (submission(b"x" * n) for n in (95_000, 1, 1, 1))
    sent = [known[0], too_large, small, known[6], last, submission(b"x"), one_too_many, known[3]]
    answers = await enqueue(store, *sent)
    refused = [answer.subject if isinstance(answer, QueueFull) else answer for answer in answers]
    assert refused == [None, "model:m/bytes", None, None, None, None, "model:m/jobs", None]
    assert totals(redis_server) == {"accepted": 10}
    with redis_server.client() as client:
        admitted = [*known, small, last, sent[5]]
        assert int(client.hget(keys.load(MODEL), "bytes") or 0) == sum(map(size_bytes, admitted))


async def test_more_than_one_batch_and_model_go_in_one_send(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    jobs = [submission(bytes([i])) for i in range(150)]
    for each in jobs[::10]:
        each.job.model = "another"
    async with JobStore(redis_server.url, "server-1", QueueLimits(140, 1 << 20)) as store:
        answers = await enqueue(store, *jobs)
    assert answers == [None] * 150
    assert [claim.image for claim in take(queue, 150)] == [
        each.image for each in jobs if each.job.model == MODEL
    ]


async def test_large_images_are_not_admitted_together(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    jobs = [submission(bytes([i]) * 700_000) for i in range(5)]
    async with JobStore(redis_server.url, "server-1", QueueLimits(140, 1 << 30)) as store:
        with redis_server.client() as client:
            client.config_resetstat()
            assert await enqueue(store, *jobs) == [None] * 5
            calls = client.info("commandstats")
    scripts = [value["calls"] for name, value in calls.items() if name.startswith("cmdstat_eval")]
    assert sum(scripts) - 3 in (0, 3)  # three batches, sent once more if the script was not known
    assert [claim.image for claim in take(queue)] == [each.image for each in jobs]


async def test_a_job_that_follows_a_cancel_is_not_admitted_before_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    first, second, other = submission(b"first"), submission(b"second"), submission()
    # So that Redis knows both scripts: one that it has forgotten is sent again after the rest.
    await store.send([Enqueue(other), Cancel.of(other, Outcome.CANCELLED)])
    await store.send(
        [Enqueue(first), Cancel.of(second, Outcome.CANCELLED), Enqueue(second), Enqueue(first)]
    )
    assert [claim.image for claim in take(queue)] == [b"first"]
    assert totals(redis_server) == {"accepted": 2, "cancelled": 1}


async def test_full_memory_refuses_all_of_a_batch_but_those_it_knows(
    redis_server: RedisServer, store: JobStore
) -> None:
    known, *new = (submission() for _ in range(3))
    await enqueue(store, known)
    with redis_server.client() as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            answers = await enqueue(store, new[0], known, new[1])
        finally:
            client.config_set("maxmemory", before)
        subjects = [each.subject if isinstance(each, QueueFull) else each for each in answers]
        assert subjects == ["model:m/memory", None, "model:m/memory"]
        assert totals(redis_server) == {"accepted": 1}
        assert client.exists(*(keys.job(MODEL, each.job.id) for each in new)) == 0
    assert await enqueue(store, *new) == [None, None]


@pytest.mark.parametrize("name", [keys.totals(MODEL), keys.load(MODEL), *keys.call_streams(MODEL)])
async def test_a_key_in_the_way_refuses_a_batch_and_changes_nothing(
    redis_server: RedisServer, store: JobStore, name: str
) -> None:
    with redis_server.client() as client:
        client.set(name, "in the way")
        answers = await enqueue(store, submission(), submission(priority=Priority.LOW))
        assert [type(answer) for answer in answers] == [BrokerUnavailable] * 2
        assert [key.decode() for key in client.scan_iter()] == [name]
