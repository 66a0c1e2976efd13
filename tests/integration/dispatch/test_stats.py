"""What operators watch, as Redis has it."""

from collections.abc import AsyncIterator

import pytest

from despacho.job.v1.job_pb2 import FrontEndCard, ModelTally
from dispatch import keys
from dispatch.job_store import JobStore
from dispatch.jobs import Priority
from dispatch.stats_store import QueueLook, StatsStore
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, answer, enqueue, submission, take
from tests.redis_server import RedisServer


@pytest.fixture
async def stats(redis_server: RedisServer) -> AsyncIterator[StatsStore]:
    async with StatsStore(redis_server.url) as store:
        yield store


async def look(stats: StatsStore) -> QueueLook:
    found = await stats.model(MODEL)
    assert found is not None
    assert found.queues[Priority.HIGH] == QueueLook(0, 0, 0)
    return found.queues[Priority.NORMAL]


def let_time_pass(redis_server: RedisServer) -> None:
    """Return when the clock of Redis is 20 ms further."""
    with redis_server.client() as client:

        def now_us() -> int:
            seconds, microseconds = client.time()
            return int(seconds * 1_000_000 + microseconds)

        until_us = now_us() + 20_000
        while now_us() < until_us:
            pass


async def test_a_queue_is_as_old_as_its_oldest_job_claimed_or_not(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, stats: StatsStore
) -> None:
    first, second = submission(), submission()
    await enqueue(store, first)
    let_time_pass(redis_server)
    await enqueue(store, second)
    waiting = await look(stats)
    assert (waiting.entries, waiting.claimed) == (2, 0)
    assert waiting.oldest_ms >= 20
    claims = take(queue, 1)
    let_time_pass(redis_server)
    claimed = await look(stats)
    assert (claimed.entries, claimed.claimed) == (2, 1)
    assert claimed.oldest_ms >= waiting.oldest_ms + 20
    queue.complete([answer(claim) for claim in claims])
    left = await look(stats)
    assert (left.entries, left.claimed) == (1, 0)
    assert left.oldest_ms < claimed.oldest_ms
    queue.complete([answer(claim) for claim in take(queue)])
    assert await look(stats) == QueueLook(0, 0, 0)


async def test_front_ends_are_seen_while_memory_is_full(
    redis_server: RedisServer, stats: StatsStore
) -> None:
    with redis_server.client() as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            for count in (1, 2):
                tally = ModelTally(model=MODEL, failures={"QUEUE_FULL": count})
                card = FrontEndCard(server="server-1", models=[tally])
                assert await stats.announce(card) > 0
                assert await stats.front_ends() == {"server-1": card}
        finally:
            client.config_set("maxmemory", before)
    await stats.leave("server-1")
    assert await stats.front_ends() == {}


@pytest.mark.parametrize(
    ("key", "value"), [(keys.totals(MODEL), "many"), (keys.load(MODEL), b"\xff")]
)
async def test_what_is_not_ours_is_not_shown(
    redis_server: RedisServer, stats: StatsStore, key: str, value: str | bytes
) -> None:
    with redis_server.client() as client:
        client.hset(key, "bytes", value)
    assert await stats.model(MODEL) is None
