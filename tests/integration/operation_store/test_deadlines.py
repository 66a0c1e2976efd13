"""Operations whose time is over end, whatever lies before them."""

import asyncio
from dataclasses import replace

import pytest

from despacho.job.v1.job_pb2 import Job
from dispatch import keys
from dispatch.errors import (
    OperationNotFound,
)
from dispatch.jobs import Completion, Priority
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    Progress,
)
from dispatch.work_queue import WorkQueue
from tests.operation_steps import (
    LIMITS,
    MODEL,
    answer,
    assert_balanced,
    counts,
    new,
    opened,
    submit,
    take,
)
from tests.redis_server import RedisServer


async def test_one_that_is_overdue_is_seen_as_ended_though_redis_has_forgotten_some_scripts(
    redis_server: RedisServer, store: OperationStore
) -> None:
    known, operation = new(), new()
    await submit(store, known)
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as hasty:
        deadline_ms = (await submit(hasty, operation)).deadline_ms
    with redis_server.client() as client:
        client.script_flush()
    async with asyncio.timeout(5):
        while (await store.get(known.key)).now_ms <= deadline_ms:
            pass
    assert (await store.get(operation.key)).progress is Progress.DONE


async def test_one_that_is_overdue_expires_when_it_is_looked_at(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as store:
        operation = new()
        await submit(store, operation)
        async with asyncio.timeout(5):
            while (seen := await store.get(operation.key)).reply is None:
                pass
    assert seen.reply.failure.reason == "EXPIRED_IN_QUEUE"
    assert counts(redis_server)["expired"] == 1
    assert_balanced(redis_server)


async def test_those_long_overdue_are_swept_even_if_nobody_looks(
    redis_server: RedisServer, store: OperationStore
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as hasty:
        overdue = [new() for _ in range(3)]
        for operation in overdue:
            await submit(hasty, operation)
    kept = new()
    await submit(store, kept)
    assert await store.end_overdue(MODEL) == 0  # a worker may yet end them
    async with asyncio.timeout(5):
        while counts(redis_server).get("expired", 0) < len(overdue):
            await store.end_overdue(MODEL, overdue_s=0)
    assert (await store.get(kept.key)).progress is Progress.QUEUED
    assert_balanced(redis_server)


async def test_redis_alone_decides_that_a_deadline_has_passed(store: OperationStore) -> None:
    operation = new()
    await submit(store, operation)
    # As a front-end would that takes the time to be much later.
    assert await store.end_overdue(MODEL, overdue_s=-2 * LIMITS.deadline_s) == 0
    assert (await store.get(operation.key)).progress is Progress.QUEUED


@pytest.mark.parametrize("is_claimed", [False, True])
async def test_one_whose_record_is_gone_keeps_none_behind_it_from_its_end(
    redis_server: RedisServer, queue: WorkQueue, *, is_claimed: bool
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as store:
        forgotten, behind = new(), new()
        await submit(store, forgotten)
        await submit(store, behind)
        claims = take(queue, 1) if is_claimed else []
        with redis_server.client() as client:
            client.delete(keys.operation(MODEL, forgotten.key.id))
        async with asyncio.timeout(5):
            while counts(redis_server).get("expired", 0) < 2:
                await store.end_overdue(MODEL, overdue_s=0)
        assert (await store.get(behind.key)).progress is Progress.DONE
        with pytest.raises(OperationNotFound):
            await store.get(forgotten.key)
    assert queue.complete([answer(claim) for claim in claims]) == [Completion.TOO_LATE] * len(
        claims
    )
    assert_balanced(redis_server)


@pytest.mark.parametrize(
    "foreign",
    [
        {"of": "somebody else"},
        {"job": b"\xff rubbish", "deadline": "1", "size": "1"},
        {"job": b"", "deadline": "1", "size": "1"},
        {"job": Job(id="x").SerializeToString(), "deadline": "soon", "size": "1"},
        {"job": Job(id="x").SerializeToString(), "deadline": "1", "size": "much"},
        {"job": Job(id="x").SerializeToString(), "deadline": "1", "size": "1.5"},
        {"job": Job(id="x").SerializeToString(), "deadline": "1", "size": "0"},
        {"job": Job(id="x").SerializeToString(), "deadline": "inf", "size": "1"},
        {"job": Job(id="x").SerializeToString(), "deadline": "9" * 30, "size": "1"},
        {"deadline": "1"},
    ],
)
@pytest.mark.parametrize("has_group", [False, True])
async def test_an_entry_of_somebody_else_keeps_none_behind_it_from_its_end(
    redis_server: RedisServer, foreign: dict[str, bytes | str], *, has_group: bool
) -> None:
    stream = keys.jobs(MODEL, Priority.OPERATION)
    with redis_server.client() as client:
        entry = client.xadd(stream, foreign)
        if has_group:
            client.xgroup_create(stream, keys.GROUP, "0")
        async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as store:
            behind = new()
            await submit(store, behind)
            async with asyncio.timeout(5):
                while client.xlen(stream):
                    await store.end_overdue(MODEL, overdue_s=0)
            assert client.xrange(stream, entry, entry) == []
            seen = await store.get(behind.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "EXPIRED_IN_QUEUE"


async def test_one_submitted_again_after_its_record_was_lost_is_not_ended_for_the_old_one(
    redis_server: RedisServer, store: OperationStore
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as hasty:
        await submit(hasty, new(request_id="1"))
        again = new(request_id="1")
        with redis_server.client() as client:
            client.delete(keys.operation(MODEL, again.key.id))
        await submit(store, again)
        async with asyncio.timeout(5):
            while counts(redis_server).get("expired", 0) < 1:
                await store.end_overdue(MODEL, overdue_s=0)
    assert (await store.get(again.key)).progress is Progress.QUEUED
    assert_balanced(redis_server)
