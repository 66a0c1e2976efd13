"""Models that nobody serves any more are forgotten, and others are not."""

import pytest

from despacho.job.v1.job_pb2 import Job
from dispatch import keys
from dispatch.dead_letters import DeadLetters
from dispatch.errors import ModelInUse
from dispatch.job_store import JobStore
from dispatch.jobs import Priority, Room
from dispatch.operation_store import OperationStore
from dispatch.operations import NewOperation
from dispatch.work_queue import WorkQueue
from tests.letter_steps import NO_LIMIT, announce, enqueue, set_aside, set_aside_images
from tests.redis_server import RedisServer
from tests.worker_process import MODEL


async def test_a_model_that_was_never_served_cannot_be_forgotten(letters: DeadLetters) -> None:
    assert not await letters.forget(MODEL)


async def test_a_model_is_not_forgotten_while_anything_of_it_is_left(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    announce(queue)
    with pytest.raises(ModelInUse, match=r"live workers: 1$"):
        await letters.forget(MODEL)
    queue.leave()
    await enqueue(jobs, b"image")
    with pytest.raises(ModelInUse, match=r"has jobs: 1$"):
        await letters.forget(MODEL)
    set_aside(queue)
    with pytest.raises(ModelInUse, match=r"has dead letters: 1$"):
        await letters.forget(MODEL)
    assert await jobs.look(MODEL) is not None
    await letters.clear(MODEL)
    assert await letters.forget(MODEL)
    assert not await letters.forget(MODEL)
    assert await jobs.models() == []
    with redis_server.client() as client:
        assert [key for key in client.scan_iter() if client.ttl(key) == -1] == []


async def test_what_a_late_call_leaves_of_a_forgotten_model_can_be_forgotten_as_well(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    announce(queue)
    queue.leave()
    assert await letters.forget(MODEL)
    # Of a front-end that had not noticed.
    await set_aside_images(jobs, queue, b"image")
    with pytest.raises(ModelInUse, match=r"has dead letters: 1$"):
        await letters.forget(MODEL)
    await letters.clear(MODEL)
    assert await letters.forget(MODEL)
    with redis_server.client() as client:
        assert [key for key in client.scan_iter() if client.ttl(key) == -1] == []


async def test_an_operation_that_waits_keeps_its_model(
    letters: DeadLetters, operations: OperationStore, queue: WorkQueue
) -> None:
    announce(queue)
    queue.leave()
    new = NewOperation.of(Job(model=MODEL, top_k=1), b"image", caller="me", request_id="mine")
    await operations.submit(new, is_synced=False)
    with pytest.raises(ModelInUse, match=r"has jobs: 1$"):
        await letters.forget(MODEL)
    await operations.cancel(new.key)
    assert await letters.forget(MODEL)
    # What has ended can be fetched all the same.
    assert (await operations.get(new.key)).reply is not None


async def test_workers_that_are_dead_do_not_keep_their_model(
    redis_server: RedisServer, letters: DeadLetters, queue: WorkQueue
) -> None:
    announce(queue)
    with redis_server.client() as client:
        client.delete(keys.worker(MODEL, queue.worker))  # what its silence would do
    assert await letters.forget(MODEL)


async def test_a_worker_that_comes_back_makes_its_model_known_again(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    announce(queue)
    with redis_server.client() as client:
        client.delete(keys.worker(MODEL, queue.worker))
    assert await letters.forget(MODEL)
    announce(queue)
    assert await jobs.models() == [MODEL]
    look = await jobs.look(MODEL)
    assert look is not None
    assert len(look.workers) == 1
    await enqueue(jobs, b"image")
    # The group is gone as well, and the queue makes it again.
    assert len(queue.claim(tuple(Priority), Room(8, NO_LIMIT), block=False)) == 1
