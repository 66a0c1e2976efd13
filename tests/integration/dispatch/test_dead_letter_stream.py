"""Jobs that are set aside, and entries nobody can read."""

from contextlib import aclosing

from despacho.job.v1.job_pb2 import DeadLetter, Reply
from dispatch import keys
from dispatch.job_store import JobStore, size_bytes
from dispatch.jobs import (
    Priority,
)
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import MODEL, assert_drained, enqueue, submission, take, totals
from tests.redis_server import RedisServer


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


async def test_a_job_that_is_larger_than_all_letters_may_be_takes_none_away(
    redis_server: RedisServer, store: JobStore, queue: WorkQueue
) -> None:
    await enqueue(store, submission(), submission(b"x" * 1000))
    small, large = take(queue)
    for claim in (small, large):
        queue.quarantine(claim, Reply(), DeadLetter(), small.size_bytes)
    with redis_server.client() as client:
        ((_, fields),) = client.xrange(keys.dead(MODEL))
        assert fields[b"image"] == small.image
        assert int(client.hget(keys.load(MODEL), "dead_bytes")) == small.size_bytes
    assert totals(redis_server)["poisoned"] == 2
    assert_drained(redis_server)


async def test_entries_nobody_can_read_are_dropped(
    redis_server: RedisServer, queue: WorkQueue
) -> None:
    with redis_server.client() as client:
        client.xadd(keys.jobs(MODEL, Priority.NORMAL), {"what": "ever"})
    assert take(queue) == []
    with redis_server.client() as client:
        assert client.xlen(keys.jobs(MODEL, Priority.NORMAL)) == 0
