"""What is seen of an operation, and in lists."""

from dataclasses import replace

import pytest

from dispatch import keys
from dispatch.errors import (
    OperationNotFound,
)
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    OperationKey,
    Progress,
)
from dispatch.work_queue import WorkQueue
from tests.operation_steps import MODEL, NEWEST, answer, new, submit, take
from tests.redis_server import RedisServer


async def test_callers_see_only_their_own(store: OperationStore) -> None:
    mine, theirs = new(request_id="1", caller="me"), new(request_id="1", caller="you")
    await submit(store, mine)
    await submit(store, theirs)
    assert mine.key.id != theirs.key.id
    stolen = replace(mine.key, caller="you")
    for peek in (store.get, store.cancel, store.delete):
        with pytest.raises(OperationNotFound):
            await peek(stolen)
    page = await store.page(MODEL, "you", before=NEWEST, count=10)
    assert [each.job.id for each in page.operations] == [theirs.key.id]


async def test_callers_delete_only_their_own(store: OperationStore, queue: WorkQueue) -> None:
    operation = new(caller="me")
    await submit(store, operation)
    queue.complete([answer(claim) for claim in take(queue)])
    with pytest.raises(OperationNotFound):
        await store.delete(replace(operation.key, caller="you"))
    assert (await store.get(operation.key)).progress is Progress.DONE


@pytest.mark.parametrize("is_claimed", [False, True])
async def test_the_position_stays_between_one_and_those_that_wait(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue, *, is_claimed: bool
) -> None:
    submitted = [new() for _ in range(3)]
    for operation in submitted:
        await submit(store, operation)
    waiting = submitted[1:] if take(queue, 1 if is_claimed else 0) else submitted
    with redis_server.client() as client:
        for lost in (1, 2):  # and one more submission in between: numbers begin again
            client.delete(keys.load(MODEL))
            for operation in waiting:
                assert 1 <= (await store.get(operation.key)).position <= len(waiting)
            if lost == 1:
                waiting.append(new())
                assert (await submit(store, waiting[-1])).position <= len(waiting)
                for operation in waiting:
                    assert 1 <= (await store.get(operation.key)).position <= len(waiting)


async def test_each_position_counts_those_before_it(store: OperationStore) -> None:
    submitted = [new() for _ in range(3)]
    for operation in submitted:
        await submit(store, operation)
    assert [(await store.get(each.key)).position for each in submitted] == [1, 2, 3]


async def test_one_given_back_waits_at_the_front(store: OperationStore, queue: WorkQueue) -> None:
    operation = new()
    await submit(store, operation)
    queue.give_back(take(queue))
    seen = await store.get(operation.key)
    assert (seen.progress, seen.position) == (Progress.QUEUED, 1)


async def test_looking_at_one_of_another_model_finds_nothing(store: OperationStore) -> None:
    operation = new()
    await submit(store, operation)
    elsewhere = OperationKey("other", operation.key.id, "me")
    assert await store.first_of([elsewhere, operation.key]) == operation.key
    assert await store.first_of([elsewhere]) is None
    assert await store.first_of([]) is None
