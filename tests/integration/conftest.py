"""What tests of the whole system begin with."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.stack import Stack


@pytest.fixture
async def stack(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Stack]:
    """A Redis of its own, and nothing started yet."""
    stack = Stack(own_redis, tmp_path)
    yield stack
    await stack.close()
