"""Whoever waits hears of the end, and no key outlives its use."""

import pytest

from despacho.job.v1.job_pb2 import DeadLetter
from dispatch import keys
from dispatch.done_stream import DoneStream
from dispatch.operation_store import OperationStore
from dispatch.work_queue import WorkQueue
from tests.operation_steps import MODEL, answer, new, submit, take
from tests.redis_server import RedisServer


async def test_every_key_of_operations_has_an_end(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    await submit(store, new())
    await submit(store, new())
    (claim,) = take(queue, 1)
    queue.complete([answer(claim)])
    permanent = {
        keys.card(MODEL),
        keys.load(MODEL),
        keys.totals(MODEL),
        *keys.job_streams(MODEL),
    }
    with redis_server.client() as client:
        lasting = {key.decode() for key in client.scan_iter() if client.pttl(key) == -1}
        assert client.exists(keys.done(MODEL))
    assert lasting <= permanent


async def test_the_end_is_news_for_whoever_reads(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    before, operation, cancelled = new(), new(), new()
    for each in (before, operation, cancelled):
        await submit(store, each)
    first, second = take(queue, 2)
    queue.complete([answer(first)])
    news = DoneStream(redis_server.url, MODEL)
    await news.open()
    queue.complete([answer(second)])
    await store.cancel(cancelled.key)
    assert await news.read() == [operation.key.id, cancelled.key.id]
    await news.aclose()


async def test_news_of_somebody_else_do_not_hide_the_end(
    redis_server: RedisServer, store: OperationStore
) -> None:
    operation = new()
    await submit(store, operation)
    news = DoneStream(redis_server.url, MODEL)
    await news.open()
    with redis_server.client() as client:
        client.xadd(keys.done(MODEL), {"of": b"\xff somebody else"})
    await store.cancel(operation.key)
    assert (await news.read())[1:] == [operation.key.id]
    await news.aclose()


@pytest.mark.parametrize("end", ["complete", "quarantine", "cancel"])
async def test_only_so_many_ends_are_remembered(
    redis_server: RedisServer,
    store: OperationStore,
    queue: WorkQueue,
    monkeypatch: pytest.MonkeyPatch,
    *,
    end: str,
) -> None:
    monkeypatch.setattr(keys, "DONE_MAX", 1)
    node = 100  # Redis drops whole nodes of a stream, of so many entries
    for _ in range(2 * node + 1):
        operation = new()
        await submit(store, operation)
        if end == "cancel":
            await store.cancel(operation.key)
        else:
            (claim,) = take(queue)
            _, reply, outcome = answer(claim)
            if end == "complete":
                queue.complete([(claim, reply, outcome)])
            else:
                queue.quarantine(claim, reply, DeadLetter(), 0)
        await store.delete(operation.key)
    with redis_server.client() as client:
        assert 1 <= client.xlen(keys.done(MODEL)) <= node
