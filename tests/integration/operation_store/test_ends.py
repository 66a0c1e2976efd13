"""How an operation ends: answered, cancelled, deleted, set aside."""

from dataclasses import replace

import pytest

from despacho.job.v1.job_pb2 import DeadLetter, Failure, Reply
from dispatch import keys
from dispatch.errors import (
    OperationNotFound,
)
from dispatch.jobs import Completion
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    Progress,
)
from dispatch.work_queue import WorkQueue
from tests.operation_steps import (
    LIMITS,
    MODEL,
    NEWEST,
    answer,
    assert_balanced,
    counts,
    new,
    opened,
    submit,
    take,
)
from tests.redis_server import RedisServer


async def test_one_cancelled_in_the_queue_is_never_taken(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    assert await store.cancel(operation.key) == 1
    assert await store.cancel(operation.key) == 0
    assert take(queue) == []
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "OPERATION_CANCELLED"
    assert counts(redis_server)["cancelled"] == 1
    assert_balanced(redis_server)


async def test_one_cancelled_in_a_workers_hands_keeps_that_end(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    (claim,) = take(queue)
    assert await store.cancel(operation.key) == 2
    assert queue.renew([claim]) == [claim]
    assert queue.complete([answer(claim)]) == [Completion.TOO_LATE]
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "OPERATION_CANCELLED"
    assert_balanced(redis_server)


async def test_one_that_ended_cannot_be_cancelled(store: OperationStore, queue: WorkQueue) -> None:
    operation = new()
    await submit(store, operation)
    queue.complete([answer(claim) for claim in take(queue)])
    assert await store.cancel(operation.key) == 0
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.HasField("answer")


async def test_deleting_retires_the_job_and_forgets_the_operation(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    await store.delete(operation.key)
    with pytest.raises(OperationNotFound):
        await store.get(operation.key)
    assert take(queue) == []
    assert (await store.page(MODEL, "me", before=NEWEST, count=10)).operations == []
    assert_balanced(redis_server)


async def test_an_answer_for_a_record_that_is_gone_is_an_orphan(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    (claim,) = take(queue)
    with redis_server.client() as client:
        client.delete(keys.operation(MODEL, operation.key.id))
    assert queue.complete([answer(claim)]) == [Completion.ORPHANED]
    assert counts(redis_server)["orphaned"] == 1
    assert_balanced(redis_server)


async def test_what_became_of_a_lost_record_is_not_written_into_its_successor(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    taken = []
    for _ in range(2):
        await submit(store, operation)
        taken += take(queue)
        with redis_server.client() as client:
            client.delete(keys.operation(MODEL, operation.key.id))
    await submit(store, operation)
    answered, poisonous = taken
    assert queue.complete([answer(answered)]) == [Completion.ORPHANED]
    reply = Reply(job_id=poisonous.job.id, failure=Failure(reason="JOB_POISONED"))
    letter = DeadLetter(job=poisonous.job, deliveries=2, reason="JOB_POISONED")
    assert queue.quarantine(poisonous, reply, letter, 100_000) is Completion.ORPHANED
    assert (await store.get(operation.key)).progress is Progress.QUEUED
    assert_balanced(redis_server)


@pytest.mark.parametrize("is_answered", [False, True])
async def test_one_that_has_ended_is_kept_for_its_time_from_then_on(
    redis_server: RedisServer, queue: WorkQueue, *, is_answered: bool
) -> None:
    operation = new()
    async with opened(redis_server, replace(LIMITS, deadline_s=3600, ttl_s=60)) as store:
        await submit(store, operation)
        if is_answered:
            queue.complete([answer(claim) for claim in take(queue)])
        else:
            await store.cancel(operation.key)
        seen = await store.get(operation.key)
    assert seen.ended_ms is not None
    assert 59_000 < seen.expires_ms - seen.ended_ms <= 61_000


async def test_a_poisonous_operation_ends_and_becomes_a_dead_letter(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    (claim,) = take(queue)
    reply = Reply(job_id=claim.job.id, failure=Failure(reason="JOB_POISONED"))
    letter = DeadLetter(job=claim.job, deliveries=2, reason="JOB_POISONED")
    assert queue.quarantine(claim, reply, letter, 100_000) is Completion.PUBLISHED
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "JOB_POISONED"
    assert seen.ended_ms is not None
    assert 59_000 < seen.expires_ms - seen.ended_ms <= 61_000
    with redis_server.client() as client:
        assert client.xlen(keys.dead(MODEL)) == 1
        assert client.pttl(keys.done(MODEL)) > 0
    assert_balanced(redis_server)


@pytest.mark.parametrize("size", [{}, {"size": "rubbish"}])
async def test_what_else_is_among_the_dead_letters_makes_room_and_hinders_none(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue, size: dict[str, str]
) -> None:
    first, second = new(), new()
    with redis_server.client() as client:
        client.xadd(keys.dead(MODEL), {"letter": "of somebody else", **size})
        for operation in (first, second):
            await submit(store, operation)
            (claim,) = take(queue)
            letter = DeadLetter(job=claim.job, deliveries=2, reason="JOB_POISONED")
            reply = Reply(job_id=claim.job.id, failure=Failure(reason="JOB_POISONED"))
            most = claim.size_bytes
            assert queue.quarantine(claim, reply, letter, most) is Completion.PUBLISHED
        ((_, kept),) = client.xrange(keys.dead(MODEL))
        assert DeadLetter.FromString(kept[b"letter"]).job.id == second.key.id
        assert int(client.hget(keys.load(MODEL), "dead_bytes") or 0) == int(kept[b"size"])
    for operation in (first, second):
        assert (await store.get(operation.key)).progress is Progress.DONE
    assert_balanced(redis_server)
