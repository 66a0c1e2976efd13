"""Dead letters and forgotten models, on a real server and through real processes."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from redis.exceptions import ResponseError

from despacho.job.v1.job_pb2 import DeadLetter, Job, ModelCard, Reply, WorkerCard
from dispatch import dead_letters, keys
from dispatch.dead_letters import DeadLetters
from dispatch.errors import DeadLetterNotFound, JobPoisoned, ModelInUse
from dispatch.job_store import Enqueue, JobStore, QueueLimits
from dispatch.jobs import Completion, Priority, Room, Submission
from dispatch.letters import START
from dispatch.operation_store import OperationStore
from dispatch.operations import NewOperation, OperationLimits
from dispatch.work_queue import WorkQueue
from prediction.v1 import admin_pb2, prediction_pb2
from prediction.v1.admin_pb2_grpc import AdminServiceStub
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.stack import (
    Colour,
    Stack,
    colour_of,
    details_of_status,
    image_of,
    reason_of,
    request_for,
)
from tests.worker_process import CRASH, MODEL

if TYPE_CHECKING:
    from prediction.v1.admin_pb2_grpc import AdminServiceAsyncStub

NO_LIMIT = 1 << 30
MAX_IMAGE_BYTES = 16 * 1024 * 1024
INNOCENT: Colour = (7, 8, 9)


@asynccontextmanager
async def running(part: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(part.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def letters(redis_server: RedisServer) -> AsyncIterator[DeadLetters]:
    store = DeadLetters(redis_server.url, max_image_bytes=MAX_IMAGE_BYTES)
    async with store, running(store):
        yield store


@pytest.fixture
async def operations(redis_server: RedisServer) -> AsyncIterator[OperationStore]:
    limits = OperationLimits(jobs=10, size_bytes=100_000, kept=10, deadline_s=60, ttl_s=60)
    store = OperationStore(redis_server.url, limits)
    with redis_server.client() as client:
        client.set(keys.card(MODEL), ModelCard(name=MODEL).SerializeToString())
    async with store, running(store):
        yield store


@pytest.fixture
async def jobs(redis_server: RedisServer) -> AsyncIterator[JobStore]:
    async with JobStore(redis_server.url, "server-1", QueueLimits(100, NO_LIMIT)) as store:
        yield store


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[WorkQueue]:
    queue = WorkQueue(redis_server.url, MODEL, "worker-1")
    queue.open()
    yield queue
    queue.close()


async def enqueue(jobs: JobStore, image: bytes) -> Job:
    job = Job(id=uuid4().hex, request_id="call", model=MODEL, reply_to="server-1", top_k=3)
    submission = Submission(job, image, Priority.NORMAL, time.monotonic() + 30)
    assert await jobs.send([Enqueue(submission)]) == [None]
    return job


def set_aside(queue: WorkQueue, *, max_bytes: int = NO_LIMIT) -> list[Completion]:
    """Quarantine all that waits."""
    outcomes = []
    for claim in queue.claim(tuple(Priority), Room(2000, NO_LIMIT), block=False):
        letter = DeadLetter(job=claim.job, deliveries=2, reason=JobPoisoned.reason)
        outcomes.append(queue.quarantine(claim, Reply(job_id=claim.job.id), letter, max_bytes))
    return outcomes


async def set_aside_images(jobs: JobStore, queue: WorkQueue, *images: bytes) -> None:
    for image in images:
        await enqueue(jobs, image)
        set_aside(queue)


async def ids_of(letters: DeadLetters) -> list[str]:
    page = await letters.page(MODEL, after=START, count=1000)
    assert page.next_after is None
    return [letter.id for letter in page.letters]


async def assert_bytes_are_right(server: RedisServer, letters: DeadLetters) -> None:
    page = await letters.page(MODEL, after=START, count=1000)
    with server.client() as client:
        counted = int(client.hget(keys.load(MODEL), "dead_bytes") or 0)
    assert counted == sum(letter.size_bytes for letter in page.letters)


async def test_a_letter_of_a_call_and_one_of_an_operation_are_kept_with_their_images(
    letters: DeadLetters, operations: OperationStore, jobs: JobStore, queue: WorkQueue
) -> None:
    of_call = await enqueue(jobs, b"\x00\xff call")
    set_aside(queue)
    of_operation = Job(model=MODEL, top_k=4, include_scores=True)
    new = NewOperation.of(of_operation, b"\x00\xff operation", caller="me", request_id="mine")
    operation = await operations.submit(new, is_synced=False)
    assert set_aside(queue) == [Completion.PUBLISHED]

    page = await letters.page(MODEL, after=START, count=10)
    assert page.next_after is None
    first, second = page.letters
    assert first.content == DeadLetter(job=of_call, deliveries=2, reason="JOB_POISONED")
    assert second.content == DeadLetter(job=operation.job, deliveries=2, reason="JOB_POISONED")
    assert first.image is None
    assert first.size_bytes > len(b"\x00\xff call")
    assert abs(first.set_aside_ms / 1000 - time.time()) < 10
    found = await letters.get(MODEL, second.id)
    assert found.image == b"\x00\xff operation"
    assert (found.id, found.content, found.size_bytes) == (
        *(second.id, second.content, second.size_bytes),
    )


async def test_the_largest_images_can_be_listed_fetched_and_purged(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    images = [bytes([number]) * MAX_IMAGE_BYTES for number in range(3)]
    await set_aside_images(jobs, queue, *images)
    every = await ids_of(letters)
    found = await asyncio.gather(*(letters.get(MODEL, letter_id) for letter_id in every))
    assert [letter.image for letter in found] == images
    assert await letters.purge(MODEL, every) == 3
    await assert_bytes_are_right(redis_server, letters)


async def test_pages_follow_each_other_and_end(
    letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    await set_aside_images(jobs, queue, *(b"%d" % number for number in range(6)))
    every = await ids_of(letters)
    assert len(every) == 6
    seen, after = [], START
    for size in (2, 2, 2):
        page = await letters.page(MODEL, after=after, count=2)
        assert len(page.letters) == size
        seen += [letter.id for letter in page.letters]
        if page.next_after is None:
            break
        after = page.next_after
    assert seen == every
    assert page.next_after is None
    # A page goes on behind a letter that is gone.
    await letters.purge(MODEL, every[:2])
    page = await letters.page(MODEL, after=every[1], count=1)
    assert [letter.id for letter in page.letters] == [every[2]]


async def test_a_letter_of_somebody_else_can_be_purged(
    redis_server: RedisServer, letters: DeadLetters
) -> None:
    with redis_server.client() as client:
        entry = client.xadd(keys.dead(MODEL), {"of": "somebody else"}).decode()
    assert await letters.purge(MODEL, [entry]) == 1
    await assert_bytes_are_right(redis_server, letters)


async def test_no_script_reads_more_images_at_once_than_it_may(
    redis_server: RedisServer,
    letters: DeadLetters,
    jobs: JobStore,
    queue: WorkQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await set_aside_images(jobs, queue, *(b"x" * 1000 for _ in range(5)))
    monkeypatch.setattr(dead_letters, "STEP_BYTES", 1500)
    with redis_server.client() as client:
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        page = await letters.page(MODEL, after=START, count=5)
        assert len(page.letters) == 5
        assert page.next_after is None
        assert await letters.purge(MODEL, [letter.id for letter in page.letters]) == 5
        # Two letters each; one more each, as the digest is not known the first time.
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls <= 8
    await assert_bytes_are_right(redis_server, letters)


async def test_a_purge_gives_back_the_bytes_of_what_it_deletes(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    await set_aside_images(jobs, queue, *(b"x" * (size * 100) for size in range(1, 5)))
    await assert_bytes_are_right(redis_server, letters)
    first, second, third, fourth = await ids_of(letters)
    assert await letters.purge(MODEL, [second, "1-0", "nonsense", second, fourth]) == 2
    assert await ids_of(letters) == [first, third]
    await assert_bytes_are_right(redis_server, letters)
    assert await letters.purge(MODEL, [second]) == 0
    assert await letters.purge(MODEL, []) == 0
    assert await letters.clear(MODEL) == 2
    assert await letters.clear(MODEL) == 0
    assert await ids_of(letters) == []
    await assert_bytes_are_right(redis_server, letters)
    await set_aside_images(jobs, queue, b"next")
    await assert_bytes_are_right(redis_server, letters)


async def test_the_room_that_a_purge_makes_is_used(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    for _ in range(4):
        await enqueue(jobs, b"x" * 700)
        set_aside(queue, max_bytes=2500)
    first, second = await ids_of(letters)  # there is room for two
    await letters.purge(MODEL, [first])
    await enqueue(jobs, b"x" * 700)
    set_aside(queue, max_bytes=2500)
    assert len(await ids_of(letters)) == 2
    assert second in await ids_of(letters)
    await assert_bytes_are_right(redis_server, letters)


async def test_ids_are_not_used_again_after_all_letters_were_purged(
    redis_server: RedisServer, letters: DeadLetters, jobs: JobStore, queue: WorkQueue
) -> None:
    await set_aside_images(jobs, queue, b"image")
    (letter_id,) = await ids_of(letters)
    await letters.clear(MODEL)
    with redis_server.client() as client, pytest.raises(ResponseError, match="equal or smaller"):
        client.xadd(keys.dead(MODEL), {"letter": b""}, id=letter_id)


@pytest.mark.parametrize("letter_id", ["-", "5", "1-0", "x-y", "", "18446744073709551616-0"])
async def test_a_letter_that_is_not_there_is_not_found(
    letters: DeadLetters, jobs: JobStore, queue: WorkQueue, letter_id: str
) -> None:
    await set_aside_images(jobs, queue, b"image")
    with pytest.raises(DeadLetterNotFound) as caught:
        await letters.get(MODEL, letter_id)
    assert caught.value.name == f"models/{MODEL}/deadLetters/{letter_id}"
    assert await letters.purge(MODEL, [letter_id]) == 0


async def test_letters_that_are_not_ours_can_be_seen_and_purged(
    redis_server: RedisServer, letters: DeadLetters
) -> None:
    with redis_server.client() as client:
        client.xadd(keys.dead(MODEL), {"letter": b"\xff\xff", "size": "7"})
        client.xadd(keys.dead(MODEL), {"something": "else"})
    first, second = await ids_of(letters)
    assert (await letters.get(MODEL, first)).size_bytes == 7
    assert (await letters.get(MODEL, second)).content == DeadLetter()
    assert await letters.purge(MODEL, [first, second]) == 2


async def test_letters_can_be_purged_while_the_memory_is_full(
    own_redis: RedisServer,
) -> None:
    store = DeadLetters(own_redis.url, max_image_bytes=MAX_IMAGE_BYTES)
    queue = WorkQueue(own_redis.url, MODEL, "worker-1")
    queue.open()
    async with (
        JobStore(own_redis.url, "server-1", QueueLimits(100, NO_LIMIT)) as jobs,
        store,
        running(store),
    ):
        await set_aside_images(jobs, queue, b"a", b"b", b"c")
        announce(queue)
        with own_redis.client() as client:
            client.config_set("maxmemory", 1)
        first, *_ = await ids_of(store)
        assert await store.purge(MODEL, [first]) == 1
        await assert_bytes_are_right(own_redis, store)
        assert await store.clear(MODEL) == 2
        await assert_bytes_are_right(own_redis, store)
        queue.leave()
        assert await store.forget(MODEL)
    queue.close()


def announce(queue: WorkQueue) -> None:
    card = WorkerCard(worker=queue.worker, model_version="1", ready=True)
    queue.announce(card, ModelCard(name=MODEL), has_changed=False)


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


# Through gRPC, with all processes.


@pytest.fixture
async def stack(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(own_redis, tmp_path)
    yield stack
    await stack.close()


async def list_letters(admin: "AdminServiceAsyncStub") -> list[admin_pb2.DeadLetter]:
    request = admin_pb2.ListDeadLettersRequest(model=MODEL)
    return list((await admin.ListDeadLetters(request, timeout=5)).dead_letters)


async def wait_for(stack: Stack, name: str) -> operations_pb2.Operation:
    request = operations_pb2.WaitOperationRequest(name=name)
    operation = await OperationsStub(stack.channel()).WaitOperation(request, timeout=40)
    assert isinstance(operation, operations_pb2.Operation)
    assert operation.done
    return operation


async def predict(
    stack: Stack, colour: Colour, *, request_id: str = "", timeout_s: float = 40
) -> prediction_pb2.PredictResponse:
    request = request_for(colour, request_id=request_id)
    return await stack.stub().Predict(request, timeout=timeout_s)


async def lose_two_workers(stack: Stack, worker: Process) -> Process:
    """Start a worker each time when one has died; return the one that sets the job aside."""
    for _ in range(2):
        await asyncio.to_thread(worker.wait)
        worker = stack.start_worker()
    return worker


@pytest.mark.timeout(120)  # four workers die, one lease after the other
async def test_a_poisonous_image_becomes_a_letter_and_after_a_replay_another_one(
    stack: Stack,
) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    admin = AdminServiceStub(stack.channel())
    assert await list_letters(admin) == []
    call = asyncio.create_task(predict(stack, CRASH, request_id="poison"))
    worker = await lose_two_workers(stack, worker)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert reason_of(caught.value) == "JOB_POISONED"

    (letter,) = await list_letters(admin)
    assert letter.request_id == "poison"
    assert (letter.deliveries, letter.reason, letter.top_k) == (2, "JOB_POISONED", 3)
    assert abs(letter.create_time.ToSeconds() - time.time()) < 30
    assert letter.image == b""
    found = await admin.GetDeadLetter(admin_pb2.GetDeadLetterRequest(name=letter.name), timeout=5)
    assert found.dead_letter.image == image_of(CRASH)
    assert found.dead_letter.size_bytes == letter.size_bytes > len(image_of(CRASH))

    replay = admin_pb2.ReplayDeadLetterRequest(name=letter.name)
    operation = await admin.ReplayDeadLetter(replay, timeout=5)
    assert await list_letters(admin) == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ReplayDeadLetter(replay, timeout=5)
    assert reason_of(caught.value) == "DEAD_LETTER_NOT_FOUND"
    await lose_two_workers(stack, worker)
    ended = await wait_for(stack, operation.name)
    assert details_of_status(ended.error)["ErrorInfo"].reason == "JOB_POISONED"
    (again,) = await list_letters(admin)
    assert again.name != letter.name
    metadata = prediction_pb2.PredictionMetadata()
    assert ended.metadata.Unpack(metadata)
    assert again.request_id == metadata.request_id

    purge = admin_pb2.PurgeDeadLettersRequest(names=[letter.name, again.name])
    assert (await admin.PurgeDeadLetters(purge, timeout=5)).purged_count == 1
    assert await list_letters(admin) == []
    with stack.redis.client() as client:
        assert int(client.hget(keys.load(MODEL), "dead_bytes") or 0) == 0
    assert stack.totals() == {"accepted": 2, "poisoned": 2}


async def test_an_innocent_image_that_was_set_aside_is_labelled_by_a_replay(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=30_000, max_deliveries=2)
    await stack.until_ready()
    call = asyncio.create_task(predict(stack, INNOCENT))
    await stack.until(lambda: bool(stack.inferred()), 10)
    worker.kill()
    stack.start_worker(max_deliveries=2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert reason_of(caught.value) == "JOB_POISONED"
    admin = AdminServiceStub(stack.channel())
    (letter,) = await list_letters(admin)
    replay = admin_pb2.ReplayDeadLetterRequest(name=letter.name)
    operation = await admin.ReplayDeadLetter(replay, timeout=5)
    ended = await wait_for(stack, operation.name)
    response = prediction_pb2.PredictResponse()
    assert ended.response.Unpack(response)
    assert colour_of(response) == INNOCENT
    assert await list_letters(admin) == []
    assert stack.totals() == {"accepted": 2, "poisoned": 1, "completed": 1}


async def test_a_model_is_forgotten_when_its_last_worker_has_stopped(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    await predict(stack, INNOCENT)
    admin, stub = AdminServiceStub(stack.channel()), stack.stub()
    forget = admin_pb2.ForgetModelRequest(name=MODEL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ForgetModel(forget, timeout=5)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "MODEL_IN_USE"
    assert worker.terminate() == 0
    await admin.ForgetModel(forget, timeout=5)
    listed = await stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=5)
    assert not listed.models
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await predict(stack, INNOCENT, timeout_s=5)
    assert reason_of(caught.value) == "MODEL_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ForgetModel(forget, timeout=5)
    assert reason_of(caught.value) == "MODEL_NOT_FOUND"
    # Served again, it is known again, and calls are answered.
    stack.start_worker()
    await stack.until_ready()
    assert colour_of(await predict(stack, INNOCENT)) == INNOCENT
    stack.assert_nothing_is_left()
