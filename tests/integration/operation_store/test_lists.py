"""Lists of operations."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from google.longrunning.operations_pb2 import ListOperationsResponse

from despacho.job.v1.job_pb2 import Answer, Reply
from dispatch import keys, operation_store
from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.jobs import Outcome
from dispatch.operation_commands import look_at
from dispatch.operation_store import OperationStore
from dispatch.operations import Operation, OperationKey, OperationPage
from dispatch.scripts import Command
from dispatch.work_queue import WorkQueue
from server.operation_messages import to_operation
from tests.operation_steps import LIMITS, MODEL, NEWEST, new, opened, submit, take
from tests.redis_server import RedisServer

MANY = 300


async def test_a_list_comes_in_pages_with_the_newest_first(store: OperationStore) -> None:
    submitted = [new() for _ in range(5)]
    for operation in submitted:
        await submit(store, operation)
    found: list[str] = []
    before: int | None = NEWEST
    sizes = []
    while before is not None:
        page = await store.page(MODEL, "me", before=before, count=2)
        sizes.append(len(page.operations))
        found += [each.job.id for each in page.operations]
        before = page.next_before
    assert found == [each.key.id for each in reversed(submitted)]
    assert sizes == [2, 2, 1]


async def test_a_page_ends_where_a_message_could_not_hold_more(
    store: OperationStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = [new() for _ in range(5)]
    for operation in submitted:
        await submit(store, operation)
    large = Answer(model_version="x" * 1000)
    queue.complete(
        [
            (claim, Reply(job_id=claim.job.id, answer=large), Outcome.COMPLETED)
            for claim in take(queue)
        ]
    )
    monkeypatch.setattr(operation_store, "PAGE_BYTES", 2500)
    found: list[str] = []
    sizes = []
    before: int | None = NEWEST
    while before is not None:
        page = await store.page(MODEL, "me", before=before, count=10)
        sizes.append(len(page.operations))
        found += [each.job.id for each in page.operations]
        before = page.next_before
    assert found == [each.key.id for each in reversed(submitted)]
    assert sizes == [2, 2, 1]


async def test_what_other_models_have_on_a_page_counts(
    store: OperationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = new(), new()
    await submit(store, older)
    await submit(store, newer)
    monkeypatch.setattr(operation_store, "PAGE_BYTES", 200)
    full = await store.page(MODEL, "me", before=NEWEST, count=10, used_bytes=190)
    assert (full.operations, full.used_bytes, full.next_before) == ([], 190, NEWEST)
    empty = await store.page(MODEL, "me", before=NEWEST, count=10)
    assert [each.job.id for each in empty.operations] == [newer.key.id, older.key.id]


@pytest.fixture
async def many(redis_server: RedisServer, queue: WorkQueue) -> AsyncIterator[OperationStore]:
    """Operations of which all have large results."""
    limits = replace(LIMITS, jobs=MANY, size_bytes=1 << 30, kept=MANY)
    scores = Answer(model_version="1.0", scores=[0.001] * 21_841)
    async with opened(redis_server, limits) as store:
        await asyncio.gather(*(submit(store, new()) for _ in range(MANY)))
        while claims := take(queue):
            queue.complete(
                [
                    (claim, Reply(job_id=claim.job.id, answer=scores), Outcome.COMPLETED)
                    for claim in claims
                ]
            )
        yield store


async def list_all(store: OperationStore, before: int = NEWEST) -> OperationPage:
    return await store.page(MODEL, "me", before=before, count=1000)


async def test_a_page_of_large_results_is_small_enough_for_callers(many: OperationStore) -> None:
    count = 0
    before: int | None = NEWEST
    while before is not None:
        page = await list_all(many, before)
        listed = ListOperationsResponse(operations=map(to_operation, page.operations))
        assert 1 << 20 < listed.ByteSize() < 4 << 20
        count += len(page.operations)
        before = page.next_before
    assert count == MANY


async def test_many_lists_at_once_leave_the_others_their_connection(many: OperationStore) -> None:
    newest, *_ = (await list_all(many)).operations
    key = OperationKey(MODEL, newest.job.id, "me")
    lists = asyncio.gather(*(list_all(many) for _ in range(100)), return_exceptions=True)
    beside = set()
    while not lists.done():
        (seen,) = await asyncio.gather(many.get(key), return_exceptions=True)
        beside.add(type(seen))
    assert beside == {Operation}
    assert {type(each) for each in await lists} == {OperationPage}


async def test_lists_that_wait_for_each_other_hear_together_that_redis_is_away(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at_a_stalled_redis(key: OperationKey) -> Command:
        own_redis.pause()
        return look_at(key)

    async with opened(own_redis) as store:
        await submit(store, new())
        # All know by then what to look at, and one of them may.
        monkeypatch.setattr(operation_store, "look_at", look_at_a_stalled_redis)
        async with asyncio.timeout(2):
            ends = await asyncio.gather(
                *(list_all(store) for _ in range(10)), return_exceptions=True
            )
    assert [type(end) for end in ends] == [OutcomeUnknown, *[BrokerUnavailable] * 9]


async def test_a_list_forgets_what_has_expired(
    redis_server: RedisServer, store: OperationStore
) -> None:
    gone, kept = new(), new()
    await submit(store, gone)
    await submit(store, kept)
    with redis_server.client() as client:
        client.delete(keys.operation(MODEL, gone.key.id))
        page = await store.page(MODEL, "me", before=NEWEST, count=10)
        assert [each.job.id for each in page.operations] == [kept.key.id]
        assert client.zcard(keys.operations(MODEL, "me")) == 1
