"""Dead letters, operations and calls, on an empty server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from despacho.job.v1.job_pb2 import ModelCard
from dispatch import keys
from dispatch.dead_letters import DeadLetters
from dispatch.job_store import JobStore, QueueLimits
from dispatch.operation_store import OperationStore
from dispatch.operations import OperationLimits
from dispatch.work_queue import WorkQueue
from tests.letter_steps import MAX_IMAGE_BYTES, NO_LIMIT, running
from tests.redis_server import RedisServer
from tests.worker_process import MODEL


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
