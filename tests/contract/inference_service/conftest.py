"""A front-end without Redis."""

from collections.abc import AsyncIterator

import pytest

from tests.front_end import FrontEnd, front_end


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end(max_image_bytes=2000) as running:
        yield running
