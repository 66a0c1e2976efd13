"""Submitting an operation, and submitting it again."""

from uuid import uuid4

import pytest

from dispatch.errors import (
    RequestIdReused,
)
from dispatch.jobs import Completion
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    Progress,
)
from dispatch.work_queue import WorkQueue
from tests.operation_steps import answer, assert_balanced, new, submit, take
from tests.redis_server import RedisServer


async def test_an_operation_goes_from_queued_to_running_to_done(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    first, second = new(), new()
    seen = await submit(store, first)
    assert (seen.progress, seen.position, seen.attempt) == (Progress.QUEUED, 1, 0)
    assert seen.expires_ms - seen.created_ms == 120_000
    assert (await submit(store, second)).position == 2
    (claim,) = take(queue, 1)
    assert claim.is_operation
    assert claim.job.id == first.key.id
    seen = await store.get(first.key)
    assert (seen.progress, seen.position, seen.attempt) == (Progress.RUNNING, 0, 1)
    assert (await store.get(second.key)).position == 1
    assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
    seen = await store.get(first.key)
    assert (seen.progress, seen.position, seen.attempt) == (Progress.DONE, 0, 1)
    assert seen.reply is not None
    assert seen.reply.answer.batch_size == 1
    assert seen.ended_ms is not None
    assert seen.created_ms <= seen.ended_ms <= seen.now_ms
    # From its end on, and no longer from its deadline.
    assert 59_000 < seen.expires_ms - seen.ended_ms <= 61_000
    assert_balanced(redis_server)


async def test_repeating_a_submission_finds_the_same_operation(
    store: OperationStore, queue: WorkQueue
) -> None:
    request_id = str(uuid4())
    once = await submit(store, new(request_id=request_id))
    again = await submit(store, new(request_id=request_id))
    assert again.job.id == once.job.id
    (claim,) = take(queue)
    while_running = await submit(store, new(request_id=request_id))
    assert while_running.progress is Progress.RUNNING
    queue.complete([answer(claim)])
    afterwards = await submit(store, new(request_id=request_id))
    assert afterwards.progress is Progress.DONE
    assert take(queue) == []


async def test_what_was_submitted_is_seen_though_redis_has_forgotten_some_scripts(
    redis_server: RedisServer, store: OperationStore
) -> None:
    known = new()
    await submit(store, known)
    with redis_server.client() as client:
        client.script_flush()
    await store.get(known.key)  # now it knows again how to look, and nothing else
    assert (await submit(store, new())).progress is Progress.QUEUED


async def test_a_trace_is_not_part_of_the_content(store: OperationStore) -> None:
    first = new(request_id="1")
    first.job.traceparent = "one"
    second = new(request_id="1")
    second.job.traceparent = "another"
    assert (await submit(store, first)).job.id == (await submit(store, second)).job.id


@pytest.mark.parametrize("change", [{"image": b"other"}, {"top_k": 1}])
async def test_a_request_id_stands_for_one_content(
    store: OperationStore, change: dict[str, object]
) -> None:
    request_id = str(uuid4())
    await submit(store, new(request_id=request_id))
    with pytest.raises(RequestIdReused):
        await submit(store, new(request_id=request_id, **change))  # type: ignore[arg-type]
