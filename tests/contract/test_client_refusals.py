"""Whoever sends a stream that is refused while it is being sent learns why."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from client import AccessDenied, AsyncClient, InvalidImage
from tests.credentials import Keys
from tests.front_end import FrontEnd, front_end

IMAGE = b"x" * 1000
TIMES = 20
"""Without care it goes wrong each time with a stream, and now and then with an upload."""


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[FrontEnd]:
    keys = Keys(tmp_path / "keys.toml")
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path), max_image_bytes=5000) as running:
        yield running


@pytest.fixture
async def stranger(front: FrontEnd) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(front.address, api_key="despacho_nobodys") as client:
        yield client


def images() -> Iterator[tuple[int, bytes]]:
    return ((number, IMAGE) for number in range(TIMES))


async def test_a_refused_stream_says_why(stranger: AsyncClient) -> None:
    for _ in range(TIMES):
        with pytest.raises(AccessDenied) as caught:
            async for _ in stranger.predict_stream(images()):
                pass
        assert caught.value.reason == "CREDENTIALS_INVALID"
        assert caught.value.unanswered


async def test_a_refused_upload_says_why(stranger: AsyncClient) -> None:
    for _ in range(TIMES):
        with pytest.raises(AccessDenied) as caught:
            await stranger.predict_upload(iter([IMAGE] * TIMES))
        assert caught.value.reason == "CREDENTIALS_INVALID"


async def test_an_upload_that_becomes_too_large_says_so() -> None:
    async with front_end(max_image_bytes=5000) as front, AsyncClient(front.address) as client:
        for _ in range(TIMES):
            with pytest.raises(InvalidImage) as caught:
                await client.predict_upload(iter([IMAGE] * TIMES))
            assert caught.value.reason == "IMAGE_TOO_LARGE"
            assert caught.value.field == "image"
