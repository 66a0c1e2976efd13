"""The promises of operations, on a real server, one step at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from uuid import uuid4

import pytest
from redis.client import Monitor

from despacho.job.v1.job_pb2 import Answer, DeadLetter, Failure, Job, ModelCard, Reply
from dispatch import keys, operation_store
from dispatch.done_stream import DoneStream
from dispatch.errors import (
    DurabilityUnavailable,
    ModelNotFound,
    OperationNotFound,
    OutcomeUnknown,
    QueueFull,
    RequestIdReused,
)
from dispatch.jobs import Claim, Completion, Outcome, Priority, Room
from dispatch.operation_store import OperationStore
from dispatch.operations import (
    NewOperation,
    Operation,
    OperationKey,
    OperationLimits,
    Progress,
)
from dispatch.work_queue import WorkQueue
from tests.redis_server import RedisServer

MODEL = "m"
LIMITS = OperationLimits(jobs=5, size_bytes=100_000, kept=8, deadline_s=60, ttl_s=60)
NEWEST = 1 << 62


@asynccontextmanager
async def opened(
    server: RedisServer, limits: OperationLimits = LIMITS
) -> AsyncIterator[OperationStore]:
    with server.client() as client:
        client.set(keys.card(MODEL), ModelCard(name=MODEL).SerializeToString())
    async with OperationStore(server.url, limits) as store:
        running = asyncio.create_task(store.run())
        yield store
        running.cancel()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[OperationStore]:
    async with opened(redis_server) as store:
        yield store


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[WorkQueue]:
    queue = WorkQueue(redis_server.url, MODEL, "worker-1")
    queue.open()
    yield queue
    queue.close()


def new(
    image: bytes = b"image", *, request_id: str = "", caller: str = "me", top_k: int = 5
) -> NewOperation:
    job = Job(model=MODEL, top_k=top_k)
    return NewOperation.of(job, image, caller=caller, request_id=request_id or str(uuid4()))


async def submit(store: OperationStore, operation: NewOperation) -> Operation:
    return await store.submit(operation, is_synced=False)


def take(queue: WorkQueue, room: int = 8) -> list[Claim]:
    return queue.claim(tuple(Priority), Room(room, 1 << 30), block=False)


def answer(claim: Claim) -> tuple[Claim, Reply, Outcome]:
    reply = Reply(job_id=claim.job.id, attempt=claim.attempt, answer=Answer(batch_size=1))
    return claim, reply, Outcome.COMPLETED


def counts(server: RedisServer) -> dict[str, int]:
    with server.client() as client:
        return {name.decode(): int(n) for name, n in client.hgetall(keys.totals(MODEL)).items()}


def knows_what_is_on_disk(server: RedisServer) -> bool:
    """Whether it has WAITAOF; Valkey says which Redis it is like."""
    with server.client() as client:
        version = str(client.info("server")["redis_version"])
    return tuple(map(int, version.split(".")[:2])) >= (7, 2)


def heard_until(monitor: Monitor, last: str) -> Iterator[dict[str, str]]:
    """Yield what a server did, the commands of scripts too."""
    for heard in monitor.listen():
        if heard["command"] == last:
            return
        yield heard


def assert_balanced(server: RedisServer) -> None:
    totals = counts(server)
    with server.client() as client:
        waiting = sum(client.xlen(stream) for stream in keys.job_streams(MODEL))
        held = int(client.hget(keys.load(MODEL), "operation_bytes") or 0)
        assert (held > 0) is (waiting > 0)
    assert totals.pop("accepted") == sum(totals.values()) + waiting


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


async def test_one_that_is_overdue_is_seen_as_ended_though_redis_has_forgotten_some_scripts(
    redis_server: RedisServer, store: OperationStore
) -> None:
    known, operation = new(), new()
    await submit(store, known)
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as hasty:
        deadline_ms = (await submit(hasty, operation)).deadline_ms
    with redis_server.client() as client:
        client.script_flush()
    async with asyncio.timeout(5):
        while (await store.get(known.key)).now_ms <= deadline_ms:
            pass
    assert (await store.get(operation.key)).progress is Progress.DONE


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


async def test_those_whose_time_is_over_do_not_count_against_a_caller(
    redis_server: RedisServer,
) -> None:
    over, kept = new(), new()
    index = keys.operations(MODEL, over.key.caller)
    life_ms = (LIMITS.deadline_s + LIMITS.ttl_s) * 1000
    async with opened(redis_server, replace(LIMITS, kept=1)) as store:
        await submit(store, over)
        with redis_server.client() as client:
            client.delete(keys.operation(MODEL, over.key.id))
            # A score is a time in units of 1/1024 ms.
            client.zincrby(index, -(life_ms + 1) * 1024, over.key.id)
            await submit(store, kept)
            assert client.zrange(index, 0, -1) == [kept.key.id.encode()]


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


async def test_one_cancelled_in_the_queue_is_never_taken(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    assert await store.cancel(operation.key) == 1
    assert await store.cancel(operation.key) == 0
    assert take(queue) == []
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "OPERATION_CANCELLED"
    assert counts(redis_server)["cancelled"] == 1
    assert_balanced(redis_server)


async def test_one_cancelled_in_a_workers_hands_keeps_that_end(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    (claim,) = take(queue)
    assert await store.cancel(operation.key) == 2
    assert queue.renew([claim]) == {claim.entry_id}
    assert queue.complete([answer(claim)]) == [Completion.TOO_LATE]
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "OPERATION_CANCELLED"
    assert_balanced(redis_server)


async def test_one_that_ended_cannot_be_cancelled(store: OperationStore, queue: WorkQueue) -> None:
    operation = new()
    await submit(store, operation)
    queue.complete([answer(claim) for claim in take(queue)])
    assert await store.cancel(operation.key) == 0
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.HasField("answer")


async def test_deleting_retires_the_job_and_forgets_the_operation(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    await store.delete(operation.key)
    with pytest.raises(OperationNotFound):
        await store.get(operation.key)
    assert take(queue) == []
    assert (await store.page(MODEL, "me", before=NEWEST, count=10)).operations == []
    assert_balanced(redis_server)


async def test_an_answer_for_a_record_that_is_gone_is_an_orphan(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    (claim,) = take(queue)
    with redis_server.client() as client:
        client.delete(keys.operation(MODEL, operation.key.id))
    assert queue.complete([answer(claim)]) == [Completion.ORPHANED]
    assert counts(redis_server)["orphaned"] == 1
    assert_balanced(redis_server)


async def test_a_poisonous_operation_ends_and_becomes_a_dead_letter(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue
) -> None:
    operation = new()
    await submit(store, operation)
    (claim,) = take(queue)
    reply = Reply(job_id=claim.job.id, failure=Failure(reason="JOB_POISONED"))
    letter = DeadLetter(job=claim.job, deliveries=2, reason="JOB_POISONED")
    assert queue.quarantine(claim, reply, letter, 100_000) is Completion.PUBLISHED
    seen = await store.get(operation.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "JOB_POISONED"
    assert seen.ended_ms is not None
    assert 59_000 < seen.expires_ms - seen.ended_ms <= 61_000
    with redis_server.client() as client:
        assert client.xlen(keys.dead(MODEL)) == 1
        assert client.pttl(keys.done(MODEL)) > 0
    assert_balanced(redis_server)


@pytest.mark.parametrize("size", [{}, {"size": "rubbish"}])
async def test_what_else_is_among_the_dead_letters_makes_room_and_hinders_none(
    redis_server: RedisServer, store: OperationStore, queue: WorkQueue, size: dict[str, str]
) -> None:
    first, second = new(), new()
    with redis_server.client() as client:
        client.xadd(keys.dead(MODEL), {"letter": "of somebody else", **size})
        for operation in (first, second):
            await submit(store, operation)
            (claim,) = take(queue)
            letter = DeadLetter(job=claim.job, deliveries=2, reason="JOB_POISONED")
            reply = Reply(job_id=claim.job.id, failure=Failure(reason="JOB_POISONED"))
            most = claim.size_bytes
            assert queue.quarantine(claim, reply, letter, most) is Completion.PUBLISHED
        ((_, kept),) = client.xrange(keys.dead(MODEL))
        assert DeadLetter.FromString(kept[b"letter"]).job.id == second.key.id
        assert int(client.hget(keys.load(MODEL), "dead_bytes") or 0) == int(kept[b"size"])
    for operation in (first, second):
        assert (await store.get(operation.key)).progress is Progress.DONE
    assert_balanced(redis_server)


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


async def test_one_given_back_waits_at_the_front(store: OperationStore, queue: WorkQueue) -> None:
    operation = new()
    await submit(store, operation)
    queue.give_back(take(queue))
    seen = await store.get(operation.key)
    assert (seen.progress, seen.position) == (Progress.QUEUED, 1)


async def test_one_that_is_overdue_expires_when_it_is_looked_at(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as store:
        operation = new()
        await submit(store, operation)
        async with asyncio.timeout(5):
            while (seen := await store.get(operation.key)).reply is None:
                pass
    assert seen.reply.failure.reason == "EXPIRED_IN_QUEUE"
    assert counts(redis_server)["expired"] == 1
    assert_balanced(redis_server)


async def test_those_long_overdue_are_swept_even_if_nobody_looks(
    redis_server: RedisServer, store: OperationStore
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as hasty:
        overdue = [new() for _ in range(3)]
        for operation in overdue:
            await submit(hasty, operation)
    kept = new()
    await submit(store, kept)
    assert await store.end_overdue(MODEL) == 0  # a worker may yet end them
    async with asyncio.timeout(5):
        while counts(redis_server).get("expired", 0) < len(overdue):
            await store.end_overdue(MODEL, overdue_s=0)
    assert (await store.get(kept.key)).progress is Progress.QUEUED
    assert_balanced(redis_server)


async def test_redis_alone_decides_that_a_deadline_has_passed(store: OperationStore) -> None:
    operation = new()
    await submit(store, operation)
    # As a front-end would that takes the time to be much later.
    assert await store.end_overdue(MODEL, overdue_s=-2 * LIMITS.deadline_s) == 0
    assert (await store.get(operation.key)).progress is Progress.QUEUED


@pytest.mark.parametrize("is_claimed", [False, True])
async def test_one_whose_record_is_gone_keeps_none_behind_it_from_its_end(
    redis_server: RedisServer, queue: WorkQueue, *, is_claimed: bool
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as store:
        forgotten, behind = new(), new()
        await submit(store, forgotten)
        await submit(store, behind)
        claims = take(queue, 1) if is_claimed else []
        with redis_server.client() as client:
            client.delete(keys.operation(MODEL, forgotten.key.id))
        async with asyncio.timeout(5):
            while counts(redis_server).get("expired", 0) < 2:
                await store.end_overdue(MODEL, overdue_s=0)
        assert (await store.get(behind.key)).progress is Progress.DONE
        with pytest.raises(OperationNotFound):
            await store.get(forgotten.key)
    assert queue.complete([answer(claim) for claim in claims]) == [Completion.TOO_LATE] * len(
        claims
    )
    assert_balanced(redis_server)


@pytest.mark.parametrize(
    "foreign",
    [
        {"of": "somebody else"},
        {"job": b"\xff rubbish", "deadline": "1", "size": "1"},
        {"job": b"", "deadline": "1", "size": "1"},
        {"job": Job(id="x").SerializeToString(), "deadline": "soon", "size": "1"},
        {"job": Job(id="x").SerializeToString(), "deadline": "1", "size": "much"},
        {"job": Job(id="x").SerializeToString(), "deadline": "1", "size": "1.5"},
        {"job": Job(id="x").SerializeToString(), "deadline": "1", "size": "0"},
        {"job": Job(id="x").SerializeToString(), "deadline": "inf", "size": "1"},
        {"job": Job(id="x").SerializeToString(), "deadline": "9" * 30, "size": "1"},
        {"deadline": "1"},
    ],
)
@pytest.mark.parametrize("has_group", [False, True])
async def test_an_entry_of_somebody_else_keeps_none_behind_it_from_its_end(
    redis_server: RedisServer, foreign: dict[str, bytes | str], *, has_group: bool
) -> None:
    stream = keys.jobs(MODEL, Priority.OPERATION)
    with redis_server.client() as client:
        entry = client.xadd(stream, foreign)
        if has_group:
            client.xgroup_create(stream, keys.GROUP, "0")
        async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as store:
            behind = new()
            await submit(store, behind)
            async with asyncio.timeout(5):
                while client.xlen(stream):
                    await store.end_overdue(MODEL, overdue_s=0)
            assert client.xrange(stream, entry, entry) == []
            seen = await store.get(behind.key)
    assert seen.reply is not None
    assert seen.reply.failure.reason == "EXPIRED_IN_QUEUE"


async def test_one_submitted_again_after_its_record_was_lost_is_not_ended_for_the_old_one(
    redis_server: RedisServer, store: OperationStore
) -> None:
    async with opened(redis_server, replace(LIMITS, deadline_s=0.001)) as hasty:
        await submit(hasty, new(request_id="1"))
        again = new(request_id="1")
        with redis_server.client() as client:
            client.delete(keys.operation(MODEL, again.key.id))
        await submit(store, again)
        async with asyncio.timeout(5):
            while counts(redis_server).get("expired", 0) < 1:
                await store.end_overdue(MODEL, overdue_s=0)
    assert (await store.get(again.key)).progress is Progress.QUEUED
    assert_balanced(redis_server)


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


async def test_synced_is_accepted_when_the_disk_has_it_and_refused_where_none_can_tell(
    redis_server: RedisServer, store: OperationStore
) -> None:
    submissions = [store.submit(new(), is_synced=True) for _ in range(3)]
    outcomes = await asyncio.gather(*submissions, return_exceptions=True)
    if knows_what_is_on_disk(redis_server):
        progress = {each.progress for each in outcomes if isinstance(each, Operation)}
        assert progress == {Progress.QUEUED}
        assert counts(redis_server) == {"accepted": 3}
    else:
        assert {type(each) for each in outcomes} == {DurabilityUnavailable}
        assert counts(redis_server) == {}
    assert (await submit(store, new())).progress is Progress.QUEUED


@pytest.mark.parametrize("has_forgotten", [False, True])
async def test_the_disk_is_asked_after_the_submission(
    redis_server: RedisServer, store: OperationStore, *, has_forgotten: bool
) -> None:
    await submit(store, new())
    with redis_server.client() as client, client.monitor() as monitor:
        if has_forgotten:
            client.script_flush()
        with suppress(DurabilityUnavailable):
            await store.submit(new(), is_synced=True)
        client.echo("end")
        seen = [each["command"].split()[0] for each in heard_until(monitor, "ECHO end")]
    if knows_what_is_on_disk(redis_server):
        assert seen.index("XADD") < len(seen) - 1 - seen[::-1].index("WAITAOF")
    else:
        assert "XADD" not in seen


async def test_a_written_submission_that_is_repeated_as_synced_writes_before_the_disk_is_asked(
    redis_server: RedisServer, store: OperationStore
) -> None:
    if not knows_what_is_on_disk(redis_server):
        pytest.skip("needs WAITAOF")
    await submit(store, new(request_id="1"))
    with redis_server.client() as client, client.monitor() as monitor:
        assert (await store.submit(new(request_id="1"), is_synced=True)).progress is Progress.QUEUED
        client.echo("end")
        seen = [each["command"].split()[0] for each in heard_until(monitor, "ECHO end")]
    assert "XADD" not in seen
    # It has no effect, but WAITAOF waits only for what its own connection has written.
    submission = seen.index("HGET")
    assert "PEXPIREAT" in seen[submission : seen.index("WAITAOF", submission)]


async def test_synced_is_refused_where_there_is_no_append_only_file(
    own_redis: RedisServer,
) -> None:
    with own_redis.client() as client:
        client.config_set("appendonly", "no")
    async with opened(own_redis) as store:
        with pytest.raises(DurabilityUnavailable):
            await store.submit(new(), is_synced=True)
    assert counts(own_redis) == {}


async def test_an_operation_outlives_a_killed_redis(own_redis: RedisServer) -> None:
    done, waiting = new(), new()
    queue = WorkQueue(own_redis.url, MODEL, "worker-1")
    queue.open()
    async with opened(own_redis) as store:
        await submit(store, done)
        await submit(store, waiting)
        queue.complete([answer(claim) for claim in take(queue, 1)])
        await asyncio.to_thread(own_redis.wait_until_written)
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)
        with suppress(OutcomeUnknown):
            await store.get(done.key)  # it may be the first to learn that its connection broke
        assert (await store.get(done.key)).progress is Progress.DONE
        assert (await store.get(waiting.key)).progress is Progress.QUEUED
    queue.close()
    assert_balanced(own_redis)


async def test_looking_at_one_of_another_model_finds_nothing(store: OperationStore) -> None:
    operation = new()
    await submit(store, operation)
    assert await store.has([operation.key])
    assert not await store.has([OperationKey("other", operation.key.id, "me")])
