"""One system, gateway and browser for the tests of a file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway import gateway
from tests.page.browser import Page, browser
from tests.redis_server import RedisServer
from tests.stack import Stack


@asynccontextmanager
async def system(folder: Path) -> AsyncIterator[Stack]:
    """Run a front-end without a worker while inside."""
    redis = RedisServer(folder)
    redis.start()
    stack = Stack(redis, folder)
    stack.start_server()
    yield stack
    await stack.close()
    redis.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A system with a worker; a test may start more, and kill those."""
    async with system(tmp_path_factory.mktemp("page")) as stack:
        stack.start_worker()
        await stack.until_ready()
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def own_stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A system without a worker, for one test."""
    async with system(tmp_path) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(stack: Stack) -> AsyncIterator[str]:
    with gateway(stack.address, threads=24, max_stats_listeners=12) as web:
        yield web.address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    with browser() as one:
        yield one
