"""Lists of operations."""

import pytest

from despacho.job.v1.job_pb2 import Answer, Reply
from dispatch import keys, operation_store
from dispatch.jobs import Outcome
from dispatch.operation_store import OperationStore
from dispatch.work_queue import WorkQueue
from tests.operation_steps import MODEL, NEWEST, new, submit, take
from tests.redis_server import RedisServer


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
    monkeypatch.setattr(operation_store, "PAGE_BYTES", 1500)
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
