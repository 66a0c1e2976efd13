"""How many operations may wait, and how many a caller may keep."""

from dataclasses import replace

import pytest

from dispatch import keys, operation_store
from dispatch.errors import (
    ModelNotFound,
    OperationNotFound,
    QueueFull,
)
from dispatch.jobs import Priority
from dispatch.operation_store import OperationStore
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


async def test_limits_of_operations_are_their_own(
    redis_server: RedisServer, store: OperationStore
) -> None:
    for _ in range(LIMITS.jobs):
        await submit(store, new())
    with pytest.raises(QueueFull) as caught:
        await submit(store, new())
    assert caught.value.subject == "model:m/operations"
    async with opened(redis_server, replace(LIMITS, jobs=100)) as roomier:
        with pytest.raises(QueueFull) as caught:
            await submit(roomier, new(b"x" * 99_999))
        assert caught.value.subject == "model:m/operation-bytes"
    with redis_server.client() as client:
        assert int(client.hget(keys.load(MODEL), "bytes") or 0) == 0
    assert_balanced(redis_server)


async def test_one_that_is_larger_than_all_may_be_is_taken_when_nothing_waits(
    redis_server: RedisServer, store: OperationStore
) -> None:
    large = b"x" * (LIMITS.size_bytes + 1)
    await submit(store, new(large))
    with pytest.raises(QueueFull):
        await submit(store, new(b""))
    assert_balanced(redis_server)


async def test_bytes_that_a_deleted_stream_left_in_the_count_take_no_room(
    redis_server: RedisServer, store: OperationStore
) -> None:
    await submit(store, new(b"x" * 90_000))
    with redis_server.client() as client:
        client.delete(keys.jobs(MODEL, Priority.OPERATION))
        await submit(store, new())
        await submit(store, new(b"x" * 10_000))
        assert int(client.hget(keys.load(MODEL), "operation_bytes")) < 20_000


async def test_a_caller_may_keep_only_so_many(store: OperationStore, queue: WorkQueue) -> None:
    kept = [new() for _ in range(LIMITS.kept)]
    for operation in kept:
        await submit(store, operation)
        queue.complete([answer(claim) for claim in take(queue)])
    with pytest.raises(QueueFull) as caught:
        await submit(store, new())
    assert caught.value.subject == "caller/operations"
    await store.delete(kept[0].key)
    await submit(store, new())


async def test_those_whose_time_is_over_are_forgotten_also_where_there_is_room(
    redis_server: RedisServer, store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_store, "PRUNE_ONE_IN", 1)
    over, kept = [new(), new()], new()
    for operation in over:
        await submit(store, operation)
    with redis_server.client() as client:
        client.delete(*(keys.operation(MODEL, each.key.id) for each in over))
        await submit(store, kept)
        index = client.zrange(keys.operations(MODEL, "me"), 0, -1)
    assert index == [kept.key.id.encode()]


async def test_a_shorter_life_of_later_ones_hides_none_that_are_still_kept(
    redis_server: RedisServer, store: OperationStore
) -> None:
    kept = [new() for _ in range(3)]
    for operation in kept:
        await submit(store, operation)
    index, long_ago_ms = keys.operations(MODEL, "me"), 10_000
    with redis_server.client() as client:
        for operation in kept:
            # A score is a time in units of 1/1024 ms.
            client.zincrby(index, -long_ago_ms * 1024, operation.key.id)
        limits = replace(LIMITS, deadline_s=1, ttl_s=1, kept=4)
        async with opened(redis_server, limits) as later:
            await submit(later, new())
            with pytest.raises(QueueFull) as caught:
                await submit(later, new())
            page = await later.page(MODEL, "me", before=NEWEST, count=10)
        assert client.pttl(index) >= client.pttl(keys.operation(MODEL, kept[-1].key.id))
    assert caught.value.subject == "caller/operations"
    assert {each.key.id for each in kept} <= {each.job.id for each in page.operations}


@pytest.mark.parametrize("kept", [2, 0])
async def test_a_caller_who_may_keep_no_more_is_told_so_and_others_are_served(
    redis_server: RedisServer, kept: int
) -> None:
    async with opened(redis_server, replace(LIMITS, kept=kept)) as store:
        for _ in range(kept):
            await submit(store, new())
        with pytest.raises(QueueFull) as caught:
            await submit(store, new())
        assert caught.value.subject == "caller/operations"


async def test_those_that_ended_and_were_forgotten_do_not_count_against_a_caller(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    async with opened(redis_server, replace(LIMITS, kept=3)) as store:
        ended, kept = [new(), new()], new()
        for operation in ended:
            await submit(store, operation)
        queue.complete([answer(claim) for claim in take(queue)])
        await submit(store, kept)
        with redis_server.client() as client:
            # As they are when `ttl_s` has passed since their end, long before their deadline.
            client.delete(*(keys.operation(MODEL, each.key.id) for each in ended))
            latest = new()
            await submit(store, latest)
            index = {each.decode() for each in client.zrange(keys.operations(MODEL, "me"), 0, -1)}
        assert index == {kept.key.id, latest.key.id}


async def test_deleting_one_that_is_forgotten_frees_its_place(
    redis_server: RedisServer, store: OperationStore
) -> None:
    gone, kept = new(), new()
    await submit(store, gone)
    await submit(store, kept)
    with redis_server.client() as client:
        client.delete(keys.operation(MODEL, gone.key.id))
        with pytest.raises(OperationNotFound):
            await store.delete(gone.key)
        assert client.zrange(keys.operations(MODEL, "me"), 0, -1) == [kept.key.id.encode()]


async def test_a_model_that_was_forgotten_takes_no_operation(
    redis_server: RedisServer, store: OperationStore
) -> None:
    known = new(request_id="1")
    await submit(store, known)
    with redis_server.client() as client:
        client.delete(keys.card(MODEL))
        for _ in range(2):
            with pytest.raises(ModelNotFound):
                await submit(store, new())
        assert counts(redis_server) == {"accepted": 1}
        # One that was accepted before is still there.
        assert (await submit(store, new(request_id="1"))).job.id == known.key.id
