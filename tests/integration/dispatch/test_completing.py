"""Many jobs retired in one round trip: each by itself, whatever becomes of the others."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from despacho.job.v1.job_pb2 import Reply
from dispatch import keys, reply_stream, retiring
from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.job_store import JobStore, QueueLimits
from dispatch.jobs import Completion, Priority
from dispatch.operation_store import OperationStore
from dispatch.reply_stream import ReplyStream
from dispatch.work_queue import WorkQueue
from tests import operation_steps
from tests.dispatch_steps import (
    MODEL,
    NOWHERE,
    answer,
    assert_drained,
    enqueue,
    submission,
    take,
    totals,
)
from tests.redis_server import RedisServer

MANY = 2 * retiring.BATCH_JOBS + 10


@pytest.fixture
async def operations(redis_server: RedisServer) -> AsyncIterator[OperationStore]:
    async with operation_steps.opened(redis_server) as operations:
        yield operations


async def listening(store: JobStore) -> ReplyStream:
    stream = store.replies(MODEL)
    await stream.open()
    return stream


async def test_calls_and_operations_are_retired_together(
    redis_server: RedisServer, store: JobStore, operations: OperationStore, queue: WorkQueue
) -> None:
    submitted = [operation_steps.new() for _ in range(2)]
    for each in submitted:
        await operation_steps.submit(operations, each)
    async with aclosing(await listening(store)) as stream:
        await enqueue(store, submission(), submission(priority=Priority.HIGH))
        high, normal, first, second = operation_steps.take(queue)
        mixed = [answer(first), answer(high), answer(second), answer(normal)]
        assert queue.complete(mixed) == [Completion.PUBLISHED] * 4
        assert [each.job_id for each in await stream.read()] == [high.job.id, normal.job.id]
    for each in submitted:
        seen = await operations.get(each.key)
        assert seen.reply is not None
        assert seen.reply.job_id == each.job.id
    operation_steps.assert_balanced(redis_server)
    assert_drained(redis_server)


async def test_more_than_fit_into_one_script_and_a_look_are_one_round_trip(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    async with (
        JobStore(redis_server.url, "server-1", QueueLimits(MANY, 1 << 30)) as store,
        aclosing(await listening(store)) as stream,
    ):
        jobs = [submission() for _ in range(MANY)]
        await enqueue(store, *jobs)
        *ended, kept, lost = take(queue, MANY)
        queue.complete([answer(lost)])
        with redis_server.client() as client:
            client.script_flush()
        completions, gone = queue.complete_and_renew([answer(each) for each in ended], [kept, lost])
        assert completions == [Completion.PUBLISHED] * (MANY - 2)
        assert gone == [lost]
        queue.complete([answer(kept)])
        read = 0
        while read < MANY:
            read += len(await stream.read())
    assert_drained(redis_server)


async def test_one_that_others_retired_is_too_late_and_the_rest_is_not(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(await listening(store)):
        await enqueue(store, *(submission() for _ in range(3)))
        first, second, third = take(queue)
        queue.complete([answer(second)])
        assert queue.complete([answer(each) for each in (first, second, third)]) == [
            Completion.PUBLISHED,
            Completion.TOO_LATE,
            Completion.PUBLISHED,
        ]
    assert totals(redis_server) == {"accepted": 3, "completed": 3}
    assert_drained(redis_server)


async def test_a_key_of_a_wrong_type_fails_the_job_that_needs_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(await listening(store)) as stream:
        await enqueue(store, submission(), submission(priority=Priority.HIGH))
        high, normal = take(queue)
        with redis_server.client() as client:
            client.rename(keys.jobs(MODEL, Priority.HIGH), "aside")
            client.set(keys.jobs(MODEL, Priority.HIGH), "in the way")
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            queue.complete([answer(high), answer(normal)])
        assert [each.job_id for each in await stream.read()] == [normal.job.id]


@pytest.mark.parametrize("key", [keys.load(MODEL), keys.totals(MODEL), keys.done(MODEL)])
async def test_a_count_of_a_wrong_type_fails_all_before_anything_is_changed(
    redis_server: RedisServer,
    store: JobStore,
    operations: OperationStore,
    queue: WorkQueue,
    key: str,
) -> None:
    await operation_steps.submit(operations, operation_steps.new())
    async with aclosing(await listening(store)):
        await enqueue(store, submission())
        ended = [answer(each) for each in operation_steps.take(queue)]
        with redis_server.client() as client:
            if client.exists(key):
                client.rename(key, "aside")
            client.set(key, "in the way")
            with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
                queue.complete(ended)
            client.delete(key)
            if client.exists("aside"):
                client.rename("aside", key)
        assert queue.complete(ended) == [Completion.PUBLISHED] * 2
    assert_drained(redis_server)


async def test_calls_do_not_depend_on_what_only_operations_need(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(await listening(store)):
        await enqueue(store, submission())
        with redis_server.client() as client:
            client.set(keys.done(MODEL), "in the way")
        assert queue.complete([answer(each) for each in take(queue)]) == [Completion.PUBLISHED]
        with redis_server.client() as client:
            client.delete(keys.done(MODEL))


async def test_a_record_that_is_none_is_nobody_to_answer_and_hides_no_other(
    redis_server: RedisServer, store: JobStore, operations: OperationStore, queue: WorkQueue
) -> None:
    operation = operation_steps.new()
    await operation_steps.submit(operations, operation)
    async with aclosing(await listening(store)):
        await enqueue(store, submission())
        call, claim = operation_steps.take(queue)
        with redis_server.client() as client:
            client.hdel(keys.operation(MODEL, claim.job.id), "ttl")
        assert queue.complete([answer(claim), answer(call)]) == [
            Completion.ORPHANED,
            Completion.PUBLISHED,
        ]
    assert totals(redis_server) == {"accepted": 2, "orphaned": 1, "completed": 1}
    assert_drained(redis_server)


async def test_a_replica_is_left_for_its_successor(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(await listening(store)):
        await enqueue(store, submission(), submission())
        ended = [answer(each) for each in take(queue)]
        with redis_server.client() as client:
            client.replicaof(*NOWHERE)
            try:
                # The connection is closed: the next one may find who took over.
                with pytest.raises(BrokerUnavailable, match="is a replica"):
                    queue.complete(ended)
            finally:
                client.replicaof("NO", "ONE")
        assert queue.complete(ended) == [Completion.PUBLISHED] * 2
    assert_drained(redis_server)


async def test_replies_that_were_read_go_after_some_more_or_when_it_is_quiet(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_stream, "BLOCK_MS", 20)
    monkeypatch.setattr(reply_stream, "TRIM_AFTER", 3)
    async with aclosing(await listening(store)) as stream:
        left = []
        with redis_server.client() as client:
            for _ in range(5):
                await enqueue(store, submission())
                queue.complete([answer(each) for each in take(queue)])
                assert len(await stream.read()) == 1
                left.append(client.xlen(keys.replies(MODEL, store.server_id)))
            assert await stream.read() == []
            assert await stream.read() == []
            left.append(client.xlen(keys.replies(MODEL, store.server_id)))
    # The fourth read took those away that were there before it.
    assert left == [1, 2, 3, 1, 2, 0]


async def test_a_reply_stream_lives_as_long_as_somebody_reads_it(
    redis_server: RedisServer, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_stream, "BLOCK_MS", 20)
    monkeypatch.setattr(reply_stream, "RENEW_S", 0)
    name = keys.replies(MODEL, store.server_id)
    async with aclosing(await listening(store)) as stream:
        with redis_server.client() as client:
            assert 0 < client.pttl(name) <= keys.REPLIES_TTL_MS
            client.pexpire(name, keys.REPLIES_TTL_MS // 2)
            assert await stream.read() == []
            assert client.pttl(name) > keys.REPLIES_TTL_MS // 2


async def test_replies_that_came_since_the_last_read_do_not_go_with_those_before(
    redis_server: RedisServer, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_stream, "TRIM_AFTER", 1)
    name = keys.replies(MODEL, store.server_id)
    async with aclosing(await listening(store)) as stream:
        with redis_server.client() as client:
            for number in range(3):  # all in one millisecond
                reply = Reply(job_id=str(number)).SerializeToString()
                client.xadd(name, {"reply": reply}, id=f"9999999999999-{number}")
                assert [each.job_id for each in await stream.read()] == [str(number)]
            assert client.xlen(name) == 1


async def test_what_is_no_reply_hides_none(redis_server: RedisServer, store: JobStore) -> None:
    name = keys.replies(MODEL, store.server_id)
    async with aclosing(await listening(store)) as stream:
        with redis_server.client() as client:
            client.xadd(name, {"reply": b"\xff"})
            client.xadd(name, {"other": b""})
            client.xadd(name, {"reply": Reply(job_id="1").SerializeToString()})
        assert [each.job_id for each in await stream.read()] == ["1"]


async def test_a_reply_stream_that_is_gone_after_a_break_is_there_again_with_the_next_read(
    redis_server: RedisServer, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_stream, "BLOCK_MS", 20)
    name = keys.replies(MODEL, store.server_id)
    async with aclosing(await listening(store)) as stream:
        with redis_server.client() as client:
            client.delete(name)
            client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(OutcomeUnknown):
                await stream.read()
            assert await stream.read() == []
            assert client.exists(name)
