"""Dead letters: listed, fetched, purged."""

import asyncio
import time

import pytest
from redis.exceptions import ResponseError

from despacho.job.v1.job_pb2 import DeadLetter, Job
from dispatch import dead_letters, keys
from dispatch.dead_letters import DeadLetters
from dispatch.errors import DeadLetterNotFound
from dispatch.job_store import JobStore, QueueLimits
from dispatch.jobs import Completion
from dispatch.letters import START
from dispatch.operation_store import OperationStore
from dispatch.operations import NewOperation
from dispatch.work_queue import WorkQueue
from tests.letter_steps import (
    MAX_IMAGE_BYTES,
    NO_LIMIT,
    announce,
    enqueue,
    running,
    set_aside,
    set_aside_images,
)
from tests.redis_server import RedisServer
from tests.worker_process import MODEL


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
