"""One system, gateway and browser for the tests of a file."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway import gateway
from tests.page.browser import Page, browser
from tests.redis_server import RedisServer
from tests.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """A system with two workers, the last of which a test may kill."""
    folder = tmp_path_factory.mktemp("page")
    redis = RedisServer(folder)
    redis.start()
    stack = Stack(redis, folder)
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    yield stack
    await stack.close()
    redis.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(stack: Stack) -> AsyncIterator[str]:
    with gateway(stack.address, threads=24, max_stats_listeners=12) as web:
        yield web.address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    with browser() as one:
        yield one
