"""A store of operations and a worker's queue, on an empty server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from dispatch.operation_store import OperationStore
from dispatch.work_queue import WorkQueue
from tests.operation_steps import MODEL, opened
from tests.redis_server import RedisServer


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
