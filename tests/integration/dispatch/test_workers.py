"""Workers and models as they are announced and seen."""

from collections.abc import Iterator

import pytest

from despacho.job.v1.job_pb2 import ModelCard, WorkerCard
from dispatch import keys, work_queue
from dispatch.job_store import JobStore
from dispatch.jobs import (
    Priority,
)
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, answer, assert_drained, enqueue, queue_for, submission, take
from tests.redis_server import RedisServer


async def test_a_worker_that_was_taken_off_the_list_is_on_it_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    card = ModelCard(name=MODEL)
    queue.announce(WorkerCard(worker="worker-1"), card, has_changed=True)
    with redis_server.client() as client:
        client.delete(keys.workers(MODEL))
    queue.announce(WorkerCard(worker="worker-1"), card, has_changed=False)
    look = await store.look(MODEL)
    assert look is not None
    assert len(look.workers) == 1


async def test_a_model_is_known_again_after_redis_lost_everything(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    card = ModelCard(name=MODEL)
    queue.announce(WorkerCard(worker="worker-1", ready=True), card, has_changed=True)
    with redis_server.client() as client:
        client.flushall()
    queue.announce(WorkerCard(worker="worker-1", ready=True), card, has_changed=False)
    assert await store.models() == [MODEL]
    look = await store.look(MODEL)
    assert look is not None
    assert [worker.ready for worker in look.workers] == [True]


@pytest.mark.usefixtures("queue")  # whose streams are there already
async def test_a_worker_can_start_and_drain_a_full_redis(
    redis_server: RedisServer, store: JobStore
) -> None:
    await enqueue(store, submission())
    with redis_server.client() as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            with queue_for(redis_server, "worker-9") as late:
                card = WorkerCard(worker="worker-9", ready=True)
                late.announce(card, ModelCard(name=MODEL), has_changed=True)
                assert len(late.complete([answer(claim) for claim in take(late)])) == 1
                assert await store.models() == [MODEL]
        finally:
            client.config_set("maxmemory", before)
    assert_drained(redis_server)


async def test_cards_that_are_not_ours_are_ignored(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    queue.announce(WorkerCard(worker="worker-1"), ModelCard(name=MODEL), has_changed=True)
    with redis_server.client() as client:
        client.sadd(keys.workers(MODEL), "stranger")
        client.set(keys.worker(MODEL, "stranger"), b"\xff\xff")
        look = await store.look(MODEL)
        assert look is not None
        assert [worker.worker for worker in look.workers] == ["worker-1"]
        client.sadd(keys.workers(MODEL), b"\xff")
        assert await store.look(MODEL) is None
        client.srem(keys.workers(MODEL), b"\xff")
        client.hset(keys.totals(MODEL), "completed", "many")
        assert await store.look(MODEL) is None
        client.delete(keys.totals(MODEL))
        client.set(keys.totals(MODEL), "in the way")
    assert await store.look(MODEL) is None


async def test_a_model_is_seen_with_its_live_workers(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    assert await store.models() == []
    card = ModelCard(name=MODEL, version="1", labels=["a"])
    queue.announce(WorkerCard(worker="worker-1", ready=True), card, has_changed=True)
    assert await store.models() == [MODEL]
    look = await store.look(MODEL)
    assert look is not None
    assert look.card == card
    assert [worker.worker for worker in look.workers] == ["worker-1"]
    queue.leave()
    look = await store.look(MODEL)
    assert look is not None
    assert look.workers == ()
    with redis_server.client() as client:
        assert client.xinfo_consumers(keys.jobs(MODEL, Priority.NORMAL), keys.GROUP) == []


async def test_names_of_workers_that_are_dead_do_not_pile_up(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    queue.announce(WorkerCard(worker="worker-1"), ModelCard(name=MODEL), has_changed=True)
    with redis_server.client() as client:
        client.sadd(keys.workers(MODEL), "dead")
        look = await store.look(MODEL)
        assert look is not None
        assert [worker.worker for worker in look.workers] == ["worker-1"]
        assert client.smembers(keys.workers(MODEL)) == {b"worker-1"}


async def test_what_was_accepted_before_the_first_worker_is_taken(
    redis_server: RedisServer, store: JobStore
) -> None:
    await enqueue(store, submission())
    with queue_for(redis_server, "worker-1") as queue:
        assert len(take(queue)) == 1


async def test_a_consumer_with_claims_is_never_deleted(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission())
    take(queue)
    queue.leave()
    with redis_server.client() as client:
        (consumer,) = client.xinfo_consumers(keys.jobs(MODEL, Priority.NORMAL), keys.GROUP)
        assert consumer["pending"] == 1


async def test_consumers_that_are_long_gone_do_not_pile_up(
    redis_server: RedisServer,
    store: JobStore,
    queue: WorkQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_queue, "CONSUMER_GONE_MS", -1)
    with queue_for(redis_server, "worker-2") as gone, queue_for(redis_server, "worker-3") as other:
        await enqueue(store, submission())
        gone.complete([answer(claim) for claim in take(gone)])
        await enqueue(store, submission())
        take(other)
    queue.leave()
    with redis_server.client() as client:
        consumers = client.xinfo_consumers(keys.jobs(MODEL, Priority.NORMAL), keys.GROUP)
    assert [each["name"] for each in consumers] == [b"worker-3"]


def test_a_closed_queue_leaves_no_connection(redis_server: RedisServer) -> None:
    with redis_server.client() as client:

        def connections() -> set[str]:
            return {each["id"] for each in client.client_list()}

        before = connections()
        with queue_for(redis_server, "worker-1") as queue:
            opened = connections() - before
        assert opened
        # The server hears of it between two commands; `queue` is kept from the collector.
        assert any(opened.isdisjoint(connections()) for _ in range(1000)), queue.worker


async def test_the_clock_of_a_worker_is_that_of_redis(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    queue.announce(WorkerCard(worker="w"), ModelCard(name=MODEL), has_changed=True)
    with redis_server.client() as client:
        seconds, micros = client.time()
    assert queue.now_ms() == pytest.approx(seconds * 1000 + micros / 1000, abs=500)


async def shown(store: JobStore) -> ModelCard:
    look = await store.look(MODEL)
    assert look is not None
    return look.card


V1 = ModelCard(name=MODEL, version="1", labels=["red", "green"])
V2 = ModelCard(name=MODEL, version="2", labels=["green", "red"])


@pytest.fixture
def newer(redis_server: RedisServer) -> Iterator[WorkQueue]:
    with queue_for(redis_server, "worker-2") as queue:
        yield queue


async def test_a_version_that_never_serves_is_not_shown(
    store: JobStore, queue: WorkQueue, newer: WorkQueue
) -> None:
    # At first there is nothing better.
    queue.announce(WorkerCard(worker="worker-1"), V1, has_changed=True)
    assert await shown(store) == V1
    queue.announce(WorkerCard(worker="worker-1", ready=True), V1, has_changed=True)
    newer.announce(WorkerCard(worker="worker-2"), V2, has_changed=True)
    assert await shown(store) == V1
    newer.leave()
    assert await shown(store) == V1


@pytest.mark.parametrize("has_left", [True, False])
async def test_of_two_versions_that_serve_the_newer_one_is_shown_until_its_end(
    redis_server: RedisServer,
    store: JobStore,
    queue: WorkQueue,
    newer: WorkQueue,
    *,
    has_left: bool,
) -> None:
    old, new = (WorkerCard(worker=name, ready=True) for name in ("worker-1", "worker-2"))
    queue.announce(old, V1, has_changed=True)
    newer.announce(new, V2, has_changed=True)
    for _ in range(2):
        queue.announce(old, V1, has_changed=False)
        with redis_server.client() as client:
            client.pexpire(keys.card_of(MODEL), keys.WORKER_TTL_MS // 2)
            newer.announce(new, V2, has_changed=False)
            assert client.pttl(keys.card_of(MODEL)) > keys.WORKER_TTL_MS // 2
        assert await shown(store) == V2
    if has_left:
        newer.leave()
    with redis_server.client() as client:
        assert 0 < client.pttl(keys.card_of(MODEL)) <= keys.WORKER_TTL_MS
        client.delete(keys.card_of(MODEL))  # what its silence will do
    queue.announce(old, V1, has_changed=False)
    assert await shown(store) == V1
    # It is not its turn any more, should it only have been silent.
    newer.announce(new, V2, has_changed=False)
    assert await shown(store) == V1
