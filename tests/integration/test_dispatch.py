"""The promises of dispatch, on a real server, one operation at a time."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from uuid import uuid4

import pytest

from despacho.job.v1.job_pb2 import Answer, DeadLetter, Job, ModelCard, Reply, WorkerCard
from dispatch import keys
from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown, QueueFull
from dispatch.job_store import Cancel, Enqueue, JobStore, QueueLimits, size_bytes
from dispatch.jobs import (
    CALL_PRIORITIES,
    Claim,
    Completion,
    Outcome,
    Priority,
    Room,
    Submission,
)
from dispatch.work_queue import LEASE_S, WorkQueue
from tests.redis_server import RedisServer

MODEL = "m"


def submission(
    image: bytes = b"image", *, priority: Priority = Priority.NORMAL, timeout_s: float = 30
) -> Submission:
    job = Job(id=uuid4().hex, model=MODEL, reply_to="server-1", top_k=1)
    return Submission(job, image, priority, time.monotonic() + timeout_s)


def answer(claim: Claim) -> tuple[Claim, Reply, Outcome]:
    reply = Reply(job_id=claim.job.id, attempt=claim.attempt, answer=Answer(batch_size=1))
    return claim, reply, Outcome.COMPLETED


def take(queue: WorkQueue, room: int = 8) -> list[Claim]:
    return queue.claim(CALL_PRIORITIES, Room(room, 1 << 30), block=False)


@contextmanager
def queue_for(server: RedisServer, worker: str) -> Iterator[WorkQueue]:
    queue = WorkQueue(server.url, MODEL, worker)
    queue.open()
    yield queue
    queue.close()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[JobStore]:
    async with JobStore(redis_server.url, "server-1", QueueLimits(10, 100_000)) as store:
        yield store


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[WorkQueue]:
    with queue_for(redis_server, "worker-1") as queue:
        yield queue


@pytest.fixture
def other(redis_server: RedisServer) -> Iterator[WorkQueue]:
    with queue_for(redis_server, "worker-2") as queue:
        yield queue


async def enqueue(store: JobStore, *submissions: Submission) -> list[DespachoError | None]:
    return await store.send([Enqueue(each) for each in submissions])


def totals(server: RedisServer) -> dict[str, int]:
    with server.client() as client:
        found = client.hgetall(keys.totals(MODEL))
    return {name.decode(): int(count) for name, count in found.items()}


def assert_drained(server: RedisServer) -> None:
    with server.client() as client:
        assert [client.xlen(stream) for stream in keys.call_streams(MODEL)] == [0, 0, 0]
        assert [client.xpending(s, keys.GROUP)["pending"] for s in keys.call_streams(MODEL)] == [
            *(0, 0, 0)
        ]
        assert int(client.hget(keys.load(MODEL), "bytes") or 0) == 0
    counts = totals(server)
    assert counts.pop("accepted") == sum(counts.values())


async def test_a_job_goes_in_and_its_reply_comes_out(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission(b"\x00\xff image")
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        assert await enqueue(store, sent) == [None]
        (claim,) = take(queue)
        assert claim.job == sent.job
        assert claim.image == sent.image
        assert claim.attempt == 1
        assert claim.size_bytes == size_bytes(sent)
        assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
        (reply,) = await replies.read()
    assert reply.job_id == sent.job.id
    assert totals(redis_server) == {"accepted": 1, "completed": 1}
    assert_drained(redis_server)


async def test_higher_priorities_are_claimed_first(store: JobStore, queue: WorkQueue) -> None:
    low, normal, high = (
        submission(priority=p) for p in (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    )
    await enqueue(store, low, normal, high)
    claims = take(queue)
    assert [claim.priority for claim in claims] == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


async def test_claims_stop_at_the_room_in_jobs_and_in_bytes(
    store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, *(submission(b"x" * 5000) for _ in range(10)))
    assert len(take(queue, 3)) == 3
    assert len(queue.claim(CALL_PRIORITIES, Room(7, 1), block=False)) == 4  # one step
    assert len(take(queue, 0)) == 0


async def test_a_resent_enqueue_admits_once(redis_server: RedisServer, store: JobStore) -> None:
    sent = submission()
    assert await enqueue(store, sent, sent) == [None, None]
    assert await enqueue(store, sent) == [None]
    assert totals(redis_server) == {"accepted": 1}


async def test_a_resent_enqueue_after_the_reply_admits_nothing(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await enqueue(store, sent)
    queue.complete([answer(claim) for claim in take(queue)])
    assert await enqueue(store, sent) == [None]
    assert take(queue) == []
    assert_drained(redis_server)


async def test_jobs_beyond_the_limit_are_refused(store: JobStore) -> None:
    outcomes = await enqueue(store, *(submission() for _ in range(12)))
    assert outcomes[:10] == [None] * 10
    assert [type(outcome) for outcome in outcomes[10:]] == [QueueFull, QueueFull]


async def test_bytes_beyond_the_limit_are_refused(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    outcomes = await enqueue(store, *(submission(b"x" * 40_000) for _ in range(3)))
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), QueueFull]
    queue.complete([answer(claim) for claim in take(queue)])
    # One that is larger than the limit is admitted alone rather than never.
    assert await enqueue(store, submission(b"x" * 200_000)) == [None]
    queue.complete([answer(claim) for claim in take(queue)])
    assert_drained(redis_server)


async def test_full_memory_refuses_jobs_and_lets_claimed_ones_end(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        await enqueue(store, submission())
        (claim,) = take(queue)
        with redis_server.client() as client:
            before = client.config_get("maxmemory")["maxmemory"]
            client.config_set("maxmemory", 1)
            try:
                (refusal,) = await enqueue(store, submission())
                assert isinstance(refusal, QueueFull)
                queue.announce(WorkerCard(worker="w"), ModelCard(name=MODEL), has_changed=False)
                assert queue.renew([claim]) == set()
                assert queue.complete([answer(claim)]) == [Completion.PUBLISHED]
                assert len(await replies.read()) == 1
            finally:
                client.config_set("maxmemory", before)
    assert_drained(redis_server)


async def test_each_job_of_a_batch_is_judged_for_itself(
    redis_server: RedisServer, store: JobStore
) -> None:
    known = [submission(b"x" * 1000) for _ in range(7)]
    assert await enqueue(store, *known) == [None] * 7
    too_large, small, last, one_too_many = (submission(b"x" * n) for n in (95_000, 1, 1, 1))
    sent = [known[0], too_large, small, known[6], last, submission(b"x"), one_too_many, known[3]]
    answers = await enqueue(store, *sent)
    refused = [answer.subject if isinstance(answer, QueueFull) else answer for answer in answers]
    assert refused == [None, "model:m/bytes", None, None, None, None, "model:m/jobs", None]
    assert totals(redis_server) == {"accepted": 10}
    with redis_server.client() as client:
        admitted = [*known, small, last, sent[5]]
        assert int(client.hget(keys.load(MODEL), "bytes") or 0) == sum(map(size_bytes, admitted))


async def test_more_than_one_batch_and_model_go_in_one_send(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    jobs = [submission(bytes([i])) for i in range(150)]
    for each in jobs[::10]:
        each.job.model = "another"
    async with JobStore(redis_server.url, "server-1", QueueLimits(140, 1 << 20)) as store:
        answers = await enqueue(store, *jobs)
    assert answers == [None] * 150
    assert [claim.image for claim in take(queue, 150)] == [
        each.image for each in jobs if each.job.model == MODEL
    ]


async def test_large_images_are_not_admitted_together(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    jobs = [submission(bytes([i]) * 700_000) for i in range(5)]
    async with JobStore(redis_server.url, "server-1", QueueLimits(140, 1 << 30)) as store:
        with redis_server.client() as client:
            client.config_resetstat()
            assert await enqueue(store, *jobs) == [None] * 5
            calls = client.info("commandstats")
    scripts = [value["calls"] for name, value in calls.items() if name.startswith("cmdstat_eval")]
    assert sum(scripts) - 3 in (0, 3)  # three batches, sent once more if the script was not known
    assert [claim.image for claim in take(queue)] == [each.image for each in jobs]


async def test_a_job_that_follows_a_cancel_is_not_admitted_before_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    first, second, other = submission(b"first"), submission(b"second"), submission()
    # So that Redis knows both scripts: one that it has forgotten is sent again after the rest.
    await store.send([Enqueue(other), Cancel.of(other, Outcome.CANCELLED)])
    await store.send(
        [Enqueue(first), Cancel.of(second, Outcome.CANCELLED), Enqueue(second), Enqueue(first)]
    )
    assert [claim.image for claim in take(queue)] == [b"first"]
    assert totals(redis_server) == {"accepted": 2, "cancelled": 1}


async def test_full_memory_refuses_all_of_a_batch_but_those_it_knows(
    redis_server: RedisServer, store: JobStore
) -> None:
    known, *new = (submission() for _ in range(3))
    await enqueue(store, known)
    with redis_server.client() as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            answers = await enqueue(store, new[0], known, new[1])
        finally:
            client.config_set("maxmemory", before)
        subjects = [each.subject if isinstance(each, QueueFull) else each for each in answers]
        assert subjects == ["model:m/memory", None, "model:m/memory"]
        assert totals(redis_server) == {"accepted": 1}
        assert client.exists(*(keys.job(MODEL, each.job.id) for each in new)) == 0
    assert await enqueue(store, *new) == [None, None]


@pytest.mark.parametrize("name", [keys.totals(MODEL), keys.load(MODEL), *keys.call_streams(MODEL)])
async def test_a_key_in_the_way_refuses_a_batch_and_changes_nothing(
    redis_server: RedisServer, store: JobStore, name: str
) -> None:
    with redis_server.client() as client:
        client.set(name, "in the way")
        answers = await enqueue(store, submission(), submission(priority=Priority.LOW))
        assert [type(answer) for answer in answers] == [BrokerUnavailable] * 2
        assert [key.decode() for key in client.scan_iter()] == [name]


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.EXPIRED])
async def test_cancelling_a_waiting_job_removes_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, outcome: Outcome
) -> None:
    sent = submission()
    assert await store.send([Enqueue(sent), Cancel.of(sent, outcome)]) == [None, None]
    assert take(queue) == []
    assert totals(redis_server) == {"accepted": 1, outcome.value: 1}
    assert_drained(redis_server)


async def test_a_job_can_be_cancelled_after_its_deadline(
    redis_server: RedisServer, store: JobStore
) -> None:
    sent = submission(timeout_s=0)
    await enqueue(store, sent)
    with redis_server.client() as client:
        assert client.pttl(keys.job(MODEL, sent.job.id)) > 1000
    await store.send([Cancel.of(sent, Outcome.EXPIRED)])
    assert totals(redis_server) == {"accepted": 1, "expired": 1}


async def test_cancelling_a_claimed_job_makes_its_completion_a_no_op(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await enqueue(store, sent)
    (claim,) = take(queue)
    await store.send([Cancel.of(sent, Outcome.CANCELLED)])
    assert queue.renew([claim]) == {claim.entry_id}
    assert queue.complete([answer(claim)]) == [Completion.TOO_LATE]
    assert totals(redis_server) == {"accepted": 1, "cancelled": 1}
    assert_drained(redis_server)


async def test_a_late_enqueue_of_a_cancelled_job_admits_nothing(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await store.send([Cancel.of(sent, Outcome.CANCELLED), Enqueue(sent)])
    assert take(queue) == []
    assert totals(redis_server) == {}


async def test_cancelling_twice_counts_once(redis_server: RedisServer, store: JobStore) -> None:
    sent = submission()
    await store.send([Enqueue(sent), *[Cancel.of(sent, Outcome.CANCELLED)] * 2])
    assert totals(redis_server) == {"accepted": 1, "cancelled": 1}


async def test_completing_twice_publishes_once(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        await enqueue(store, submission())
        (claim,) = take(queue)
        assert queue.complete([answer(claim), answer(claim)]) == [
            Completion.PUBLISHED,
            Completion.TOO_LATE,
        ]
        assert len(await replies.read()) == 1
    assert_drained(redis_server)


async def test_a_reply_to_a_front_end_that_is_gone_is_counted_as_orphaned(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission())
    assert queue.complete([answer(claim) for claim in take(queue)]) == [Completion.ORPHANED]
    assert totals(redis_server) == {"accepted": 1, "orphaned": 1}
    assert_drained(redis_server)


def let_leases_end(server: RedisServer, claims: list[Claim], *, of: str) -> None:
    """Set the idle time of claims back, as if their worker had been silent that long."""
    with server.client() as client:
        for claim in claims:
            stream = keys.jobs(MODEL, claim.priority)
            idle_ms = round(LEASE_S * 1000) + 1
            client.xclaim(
                *(stream, keys.GROUP, of, 0, [claim.entry_id]),
                idle=idle_ms,
                retrycount=claim.attempt,
                justid=True,
            )


def reclaim_as_settled(queue: WorkQueue, *, room: int = 8) -> list[Claim]:
    """Reclaim like a worker that has been connected for longer than a lease."""
    queue._reachable_since -= LEASE_S + 1
    return queue.reclaim(room=room, take_suspect=True).claims


async def test_jobs_of_a_lost_worker_are_reclaimed_one_at_a_time_and_counted(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, *(submission(bytes([i])) for i in range(3)))
    let_leases_end(redis_server, take(queue), of="worker-1")
    seen = []
    while claims := reclaim_as_settled(other):
        (claim,) = claims
        assert claim.attempt == 2
        assert claim.is_suspect
        seen.append(claim.image)
        assert len(other.complete([answer(claim)])) == 1
    assert seen == [b"\x00", b"\x01", b"\x02"]
    assert_drained(redis_server)


async def test_a_live_claim_is_not_reclaimed(
    store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    claims = take(queue)
    assert reclaim_as_settled(other) == []
    assert queue.renew(claims) == set()


async def test_nothing_is_judged_within_a_lease_of_connecting(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    reclaimed = other.reclaim(room=8, take_suspect=True)
    assert reclaimed.claims == []
    assert not reclaimed.has_suspects


async def test_suspects_are_announced_before_they_are_taken(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    other._reachable_since -= LEASE_S + 1
    reclaimed = other.reclaim(room=8, take_suspect=False)
    assert reclaimed.claims == []
    assert reclaimed.has_suspects


async def test_a_worker_whose_lease_was_taken_over_may_still_win(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    (slow,) = take(queue)
    let_leases_end(redis_server, [slow], of="worker-1")
    (taken,) = reclaim_as_settled(other)
    assert queue.renew([slow]) == {slow.entry_id}
    queue.complete([answer(slow)])
    assert other.complete([answer(taken)]) == [Completion.TOO_LATE]
    assert totals(redis_server) == {"accepted": 1, "orphaned": 1}
    assert_drained(redis_server)


async def test_jobs_given_back_are_taken_at_once_without_counting_an_attempt(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, *(submission() for _ in range(3)))
    claims = take(queue)
    assert queue.give_back(claims) == 3
    assert queue.renew(claims) == {claim.entry_id for claim in claims}
    taken = other.reclaim(room=2, take_suspect=False).claims
    assert [claim.attempt for claim in taken] == [1, 1]
    taken += other.reclaim(room=2, take_suspect=False).claims
    assert other.complete([answer(claim) for claim in taken]) == [Completion.ORPHANED] * 3
    assert_drained(redis_server)


async def test_a_suspect_given_back_is_taken_alone_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue, other: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    suspects = reclaim_as_settled(other)
    assert other.give_back(suspects) == 1
    reclaimed = queue.reclaim(room=8, take_suspect=False)
    assert reclaimed.claims == []
    assert reclaimed.has_suspects
    (claim,) = reclaim_as_settled(queue)
    assert claim.attempt == 2


async def test_a_claim_that_its_worker_never_heard_of_comes_back_to_it(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission())
    let_leases_end(redis_server, take(queue), of="worker-1")
    (claim,) = reclaim_as_settled(queue)
    assert claim.attempt == 1  # nobody was lost


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
    assert await store.look(MODEL) is not None


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
        client.delete(keys.totals(MODEL))
        client.set(keys.totals(MODEL), "in the way")
    assert await store.look(MODEL) is None


async def test_a_deleted_dead_letter_stream_begins_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission(), submission())
    first, second = take(queue)
    queue.quarantine(first, Reply(), DeadLetter(), first.size_bytes)
    with redis_server.client() as client:
        client.delete(keys.dead(MODEL))
        queue.quarantine(second, Reply(), DeadLetter(), first.size_bytes)
        ((_, fields),) = client.xrange(keys.dead(MODEL))
        assert fields[b"image"] == second.image


def test_a_stream_that_cannot_be_read_is_an_error(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set(keys.jobs(MODEL, Priority.HIGH), "in the way")
    queue = WorkQueue(redis_server.url, MODEL, "worker-1")
    with pytest.raises(BrokerUnavailable):
        queue.open()
    with pytest.raises(BrokerUnavailable):
        take(queue)
    queue.close()


async def test_a_poisonous_job_is_set_aside_within_the_bound_on_bytes(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    async with aclosing(store.replies(MODEL)) as replies:
        await replies.open()
        sent = [submission(b"x" * 1000) for _ in range(4)]
        await enqueue(store, *sent)
        for claim in take(queue):
            reply = Reply(job_id=claim.job.id)
            letter = DeadLetter(job=claim.job, deliveries=3)
            assert queue.quarantine(claim, reply, letter, 2 * claim.size_bytes)
        assert len(await replies.read()) == 4
    with redis_server.client() as client:
        letters = client.xrange(keys.dead(MODEL))
        assert [DeadLetter.FromString(f[b"letter"]).job for _, f in letters] == [
            each.job for each in sent[2:]
        ]
        assert int(client.hget(keys.load(MODEL), "dead_bytes")) == 2 * size_bytes(sent[0])
    assert totals(redis_server) == {"accepted": 4, "poisoned": 4}
    assert_drained(redis_server)


async def test_entries_nobody_can_read_are_dropped(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    with redis_server.client() as client:
        client.xadd(keys.jobs(MODEL, Priority.NORMAL), {"what": "ever"})
    assert take(queue) == []
    with redis_server.client() as client:
        assert client.xlen(keys.jobs(MODEL, Priority.NORMAL)) == 0


async def test_missing_jobs_are_told_from_waiting_and_claimed_ones(
    store: JobStore, queue: WorkQueue
) -> None:
    claimed, waiting, retired, unheard = (submission() for _ in range(4))
    await enqueue(store, retired, claimed)
    first, _ = take(queue, 2)
    queue.complete([answer(first)])
    await enqueue(store, waiting)
    ids = [each.job.id for each in (claimed, waiting, retired, unheard)]
    assert await store.missing(MODEL, ids) == [retired.job.id, unheard.job.id]


async def test_a_lost_job_can_be_enqueued_again(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    sent = submission()
    await enqueue(store, sent)
    queue.complete([answer(claim) for claim in take(queue)])
    await store.forget_enqueue(MODEL, sent.job.id)
    await enqueue(store, sent)
    assert len(take(queue)) == 1
    assert totals(redis_server)["accepted"] == 2


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


async def test_a_consumer_with_claims_is_never_deleted(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission())
    take(queue)
    queue.leave()
    with redis_server.client() as client:
        (consumer,) = client.xinfo_consumers(keys.jobs(MODEL, Priority.NORMAL), keys.GROUP)
        assert consumer["pending"] == 1


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
            assert queue.renew([claim]) == set()
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
