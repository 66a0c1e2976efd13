"""A Redis that forgets, dies, stalls or cannot be read."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from dispatch import keys
from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.job_store import Cancel, JobStore, QueueLimits
from dispatch.jobs import (
    Completion,
    Outcome,
    Priority,
)
from dispatch.scripts import Command
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import (
    MODEL,
    NOWHERE,
    answer,
    assert_drained,
    enqueue,
    queue_for,
    submission,
    take,
    totals,
)
from tests.redis_server import RedisServer


def test_a_stream_that_cannot_be_read_is_an_error(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set(keys.jobs(MODEL, Priority.HIGH), "in the way")
    queue = WorkQueue(redis_server.url, MODEL, "worker-1")
    with pytest.raises(BrokerUnavailable):
        queue.open()
    with pytest.raises(BrokerUnavailable):
        take(queue)
    queue.close()


async def test_what_was_claimed_before_an_error_is_kept(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission(priority=Priority.HIGH))
    with redis_server.client() as client:
        client.delete(keys.jobs(MODEL, Priority.NORMAL))
        client.set(keys.jobs(MODEL, Priority.NORMAL), "in the way")
    (claim,) = take(queue)
    assert claim.priority is Priority.HIGH
    with pytest.raises(BrokerUnavailable):
        take(queue)


async def test_what_was_claimed_before_a_connection_broke_is_kept(
    store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(store, submission(), submission())
    call, calls = queue._line.call, itertools.count(1)

    def breaking(*commands: Command, **options: float) -> list[Any]:
        if next(calls) == 3:  # after the count and the first read
            raise BrokerUnavailable("cut")
        return call(*commands, **options)

    monkeypatch.setattr(queue._line, "call", breaking)
    monkeypatch.setattr(queue._step, "jobs", lambda _room: 1)
    assert len(take(queue)) == 1
    assert len(take(queue)) == 1


async def test_forgotten_scripts_are_sent_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    with redis_server.client() as client:
        client.script_flush()
    assert await enqueue(store, submission(), submission()) == [None, None]
    with redis_server.client() as client:
        client.script_flush()
    claims = take(queue)
    assert len(queue.complete([answer(claim) for claim in claims])) == 2
    assert_drained(redis_server)


async def test_an_emptied_redis_is_an_empty_queue(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    with redis_server.client() as client:
        client.flushall()
    assert take(queue) == []
    await enqueue(store, submission())
    assert len(take(queue)) == 1


async def test_a_killed_redis_is_an_error_at_once_and_loses_nothing(own_redis: RedisServer) -> None:
    sent = submission()
    async with (
        JobStore(own_redis.url, "server-1", QueueLimits(10, 100_000)) as store,
        aclosing(store.replies(MODEL)) as replies,
    ):
        with queue_for(own_redis, "worker-1") as queue:
            await replies.open()
            await enqueue(store, sent)
            (claim,) = take(queue)
            own_redis.wait_until_written()
            own_redis.kill()
            with pytest.raises((BrokerUnavailable, OutcomeUnknown)):
                await enqueue(store, submission())
            with pytest.raises(BrokerUnavailable):
                await enqueue(store, submission())
            with pytest.raises((BrokerUnavailable, OutcomeUnknown)):
                await replies.read()
            with pytest.raises(BrokerUnavailable):
                queue.renew([claim])
            own_redis.start()
            assert queue.renew([claim]) == []
            assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
            assert [reply.job_id for reply in await replies.read()] == [sent.job.id]
    assert_drained(own_redis)


async def test_a_stalled_redis_is_an_unknown_outcome(own_redis: RedisServer) -> None:
    async with JobStore(own_redis.url, "server-1", QueueLimits(10, 100_000)) as store:
        assert await store.complaints() == []
        sent = submission()
        own_redis.pause()
        with pytest.raises(OutcomeUnknown):
            await enqueue(store, sent)
        own_redis.resume()
        assert await enqueue(store, sent) == [None]
    assert totals(own_redis) == {"accepted": 1}


@pytest.mark.parametrize("step", ["reach", "enqueue", "cancel", "look"])
async def test_a_front_end_leaves_a_replica_for_its_successor(
    redis_server: RedisServer, store: JobStore, step: str
) -> None:
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "reach": store.complaints,
        "enqueue": lambda: enqueue(store, submission()),
        # Of a job that is not there, as all that is left to do is a mark.
        "cancel": lambda: store.send([Cancel.of(submission(), Outcome.CANCELLED)]),
        "look": store.models,
    }
    await steps[step]()
    with redis_server.client() as client:
        client.replicaof(*NOWHERE)
        try:
            # The connection is closed: the next one may find who took over.
            with pytest.raises(OutcomeUnknown, match="is a replica"):
                await steps[step]()
        finally:
            client.replicaof("NO", "ONE")
    await steps[step]()


async def test_a_redis_that_loads_its_file_is_not_reached(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        for number in range(2000):
            client.set(f"key-{number}", 0)
        own_redis.wait_until_written()
        own_redis.kill()
        slowly = ("--key-load-delay", "500")  # microseconds for each
        starting = asyncio.create_task(asyncio.to_thread(own_redis.start, *slowly))
        causes = set[str]()
        async with JobStore(own_redis.url, "server-1", QueueLimits(10, 100_000)) as store:
            while True:
                try:
                    await store.complaints()
                except (BrokerUnavailable, OutcomeUnknown) as error:
                    causes.add(str(error.__cause__).partition(" ")[0])
                    await asyncio.sleep(0.01)
                else:
                    break
            assert client.info("persistence")["loading"] == 0
        assert "LOADING" in causes
        await starting


async def test_a_reader_starts_over_when_redis_lost_its_stream(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        with redis_server.client() as client:
            # As a replica that never heard of the last entries would come up.
            client.xadd(keys.replies(MODEL, "server-1"), {"reply": b""}, id="9999999999999-0")
            assert len(await replies.read()) == 1
            client.flushall()
        await replies.open()
        queue.open()
        await enqueue(store, submission())
        queue.complete([answer(claim) for claim in take(queue)])
        assert len(await replies.read()) == 1
