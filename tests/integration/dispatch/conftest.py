"""A store of jobs and the queues of two workers, on an empty server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from dispatch.job_store import JobStore, QueueLimits
from dispatch.work_queue import WorkQueue
from tests.dispatch_steps import queue_for
from tests.redis_server import RedisServer


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[JobStore]:
    async with JobStore(redis_server.url, "server-1", QueueLimits(10, 100_000)) as store:
        yield store


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[WorkQueue]:
    with queue_for(redis_server, "worker-1") as queue:
        yield queue
