"""Sending one image in chunks, with both clients, over a real connection."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidImage,
    Overloaded,
    PredictionResult,
    Priority,
)
from client.chunks import CHUNK_BYTES
from prediction.v1 import prediction_pb2
from tests.fake_front_end import LIMIT_S, FakeFrontEnd

LARGE = b"large " + bytes(1024 * 1024)
"""More than one chunk, and more than gRPC keeps for a retry by default."""


@pytest.fixture
def server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as server:
        yield server


@pytest.fixture
def client(server: FakeFrontEnd) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


@pytest.fixture
async def async_client(server: FakeFrontEnd) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target) as client:
        yield client


def check_cat(server: FakeFrontEnd, result: PredictionResult) -> None:
    [request] = server.requests
    assert (request.image, request.model, request.top_k) == (b"cat", "m", 1)
    assert request.priority == prediction_pb2.PRIORITY_HIGH
    assert (request.request_id, server.announced_bytes) == ("r-1", 3)
    assert result.labels[0].label == "cat"
    assert (result.request_id, result.scores) == ("r-1", (0, 0.25, 0, 0.75))


def test_chunks_of_any_size_are_one_image(server: FakeFrontEnd, client: Client) -> None:
    result = client.predict_upload(
        [b"c", b"", b"at"],
        total_bytes=3,
        model="m",
        top_k=1,
        priority=Priority.HIGH,
        include_scores=True,
        request_id="r-1",
    )
    check_cat(server, result)


async def test_asynchronous_chunks_are_one_image(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"c", b"", b"at"):
            await asyncio.sleep(0)
            yield chunk

    result = await async_client.predict_upload(
        chunks(),
        total_bytes=3,
        model="m",
        top_k=1,
        priority=Priority.HIGH,
        include_scores=True,
        request_id="r-1",
    )
    check_cat(server, result)


async def test_synchronous_chunks_will_do(async_client: AsyncClient) -> None:
    result = await async_client.predict_upload([b"do", b"g"])
    assert result.labels[0].label == "dog"


@pytest.mark.parametrize("form", ["file", "one chunk"])
def test_a_file_is_read_in_chunks_and_a_large_chunk_is_divided(
    server: FakeFrontEnd, client: Client, form: str
) -> None:
    assert client.predict_upload(io.BytesIO(LARGE) if form == "file" else [LARGE])
    assert server.requests[0].image == LARGE
    assert max(server.chunk_sizes) == CHUNK_BYTES


async def test_a_file_is_read_by_the_asyncio_client_too(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    assert await async_client.predict_upload(io.BytesIO(LARGE))
    assert server.requests[0].image == LARGE
    assert max(server.chunk_sizes) == CHUNK_BYTES


def test_an_upload_is_retried_while_the_server_is_unavailable(
    server: FakeFrontEnd, client: Client
) -> None:
    server.refusals_left = 2
    assert client.predict_upload(iter([LARGE])).labels[0].label == "large"
    assert server.attempt_count == 3


def test_a_refusal_in_the_middle_reaches_the_caller(server: FakeFrontEnd, client: Client) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"bad"

    with pytest.raises(InvalidImage) as caught:
        client.predict_upload(endless(), request_id="r-1")
    assert (caught.value.reason, caught.value.request_id) == ("IMAGE_UNDECODABLE", "r-1")
    assert server.requests == []


def test_overload_is_not_waited_out(server: FakeFrontEnd, client: Client) -> None:
    with pytest.raises(Overloaded):
        client.predict_upload([b"full"])
    assert server.attempt_count == 1


def test_what_the_chunks_raise_is_raised_and_nothing_is_labelled(
    server: FakeFrontEnd, client: Client
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        client.predict_upload(broken())
    assert server.requests == []


async def test_what_asynchronous_chunks_raise_is_raised_and_nothing_is_labelled(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await async_client.predict_upload(broken())
    assert server.requests == []


def test_text_is_no_chunk(server: FakeFrontEnd, client: Client) -> None:
    with pytest.raises(TypeError):
        client.predict_upload(["text"])  # type: ignore[list-item]
    assert server.requests == []


def test_chunks_that_pause_for_too_long_end_with_the_deadline(client: Client) -> None:
    go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"half"
        go_on.wait(LIMIT_S)

    with pytest.raises(DeadlineExceeded):
        client.predict_upload(slow(), timeout_s=0.3)
    go_on.set()


async def test_cancelling_the_task_cancels_the_upload(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    task = asyncio.create_task(async_client.predict_upload([b"slow"]))
    assert await asyncio.to_thread(server.slow_arrived.wait, LIMIT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.call_ended.wait, LIMIT_S)
