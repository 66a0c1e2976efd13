"""Both clients when a call or the client itself ends while the caller's input is read."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client import AsyncClient, Cancelled, Client, Image, InvalidImage, Unavailable
from tests.fake_front_end import LIMIT_S, FakeFrontEnd


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


class SlowFile:
    """A file that a client has opened and cannot read to its end."""

    def __init__(self, folder: Path, once_opened: Callable[[], None]) -> None:
        self.path = folder / "slow.jpg"
        os.mkfifo(self.path)
        self._once_opened = once_opened
        self._may_end = threading.Event()
        self._writer = threading.Thread(target=self._write)
        self._writer.start()

    def _write(self) -> None:
        with self.path.open("wb") as file:  # waits for who reads it
            self._once_opened()
            self._may_end.wait(LIMIT_S)
            file.write(b"cat")

    def end(self) -> None:
        self._may_end.set()
        self._writer.join(LIMIT_S)


def pairs(slow: Path) -> list[tuple[str, Image]]:
    return [("b", b"break"), ("c", slow), ("d", b"dog")]


def test_an_image_being_loaded_when_the_stream_breaks_is_unanswered(
    server: FakeFrontEnd, client: Client, tmp_path: Path
) -> None:
    server.may_read.clear()
    slow = SlowFile(tmp_path, once_opened=server.may_read.set)
    images = iter(pairs(slow.path))
    with pytest.raises(Unavailable) as caught:
        list(client.predict_stream(images))
    slow.end()
    assert caught.value.unanswered == ("b", "c")
    assert [key for key, _ in images] == ["d"]


async def test_an_image_being_loaded_when_the_async_stream_breaks_is_unanswered(
    server: FakeFrontEnd, async_client: AsyncClient, tmp_path: Path
) -> None:
    server.may_read.clear()
    slow = SlowFile(tmp_path, once_opened=server.may_read.set)
    images = iter(pairs(slow.path))
    with pytest.raises(Unavailable) as caught:
        _ = [outcome async for outcome in async_client.predict_stream(images)]
    await asyncio.to_thread(slow.end)
    assert caught.value.unanswered == ("b", "c")
    assert [key for key, _ in images] == ["d"]


async def test_a_stream_that_broke_takes_nothing_more_from_a_queue(
    async_client: AsyncClient,
) -> None:
    images = asyncio.Queue[tuple[str, bytes]]()

    async def queued() -> AsyncIterator[tuple[str, bytes]]:
        while True:
            yield await images.get()

    images.put_nowait(("b", b"break"))
    with pytest.raises(Unavailable):
        _ = [outcome async for outcome in async_client.predict_stream(queued())]
    images.put_nowait(("c", b"cat"))
    await others_end()
    assert images.qsize() == 1


async def test_an_upload_that_was_refused_takes_nothing_more_from_a_queue(
    async_client: AsyncClient,
) -> None:
    chunks = asyncio.Queue[bytes]()

    async def queued() -> AsyncIterator[bytes]:
        while True:
            yield await chunks.get()

    chunks.put_nowait(b"bad image")
    with pytest.raises(InvalidImage):
        await async_client.predict_upload(queued())
    chunks.put_nowait(b"of another one")
    await others_end()
    assert chunks.qsize() == 1


async def others_end() -> None:
    """Wait until no task but this one is left: those of gRPC end with their calls."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=LIMIT_S)


def missing(count: int) -> list[tuple[int, Image]]:
    return [(number, Path("missing.jpg")) for number in range(count)]


def test_images_that_cannot_be_read_need_no_call(server: FakeFrontEnd, client: Client) -> None:
    outcomes = list(client.predict_stream([*missing(10), (10, b"cat")]))
    assert [outcome.key for outcome in outcomes] == [*range(11)]
    assert server.stream_count == 1


async def test_images_that_cannot_be_read_need_no_async_call(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    stream = async_client.predict_stream([*missing(10), (10, b"cat")])
    assert [outcome.key async for outcome in stream] == [*range(11)]
    assert server.stream_count == 1


@pytest.mark.parametrize("position", [0, 1])
def test_what_is_no_image_ends_a_stream_after_the_answers(client: Client, position: int) -> None:
    images: list[tuple[int, Any]] = [(0, b"cat"), (1, b"dog")]
    images.insert(position, (2, "text"))
    outcomes = client.predict_stream(images)
    assert [next(outcomes).key for _ in range(position)] == [key for key, _ in images[:position]]
    with pytest.raises(TypeError, match="bytes or a"):
        next(outcomes)


def exiting_images() -> Iterator[tuple[int, bytes]]:
    yield 0, b"cat"
    sys.exit("bad list")


def test_an_exit_in_the_images_comes_after_the_answers(client: Client) -> None:
    outcomes = client.predict_stream(exiting_images(), timeout_s=LIMIT_S)
    assert next(outcomes).key == 0
    with pytest.raises(SystemExit, match="bad list"):
        next(outcomes)


async def test_an_exit_in_the_images_comes_after_the_async_answers(
    async_client: AsyncClient,
) -> None:
    outcomes = async_client.predict_stream(exiting_images(), timeout_s=LIMIT_S)
    assert (await anext(outcomes)).key == 0
    with pytest.raises(SystemExit, match="bad list"):
        await anext(outcomes)


def exiting_chunks() -> Iterator[bytes]:
    yield b"half"
    sys.exit("bad file")


def test_an_exit_in_the_chunks_is_raised_and_nothing_is_labelled(
    server: FakeFrontEnd, client: Client
) -> None:
    with pytest.raises(SystemExit, match="bad file"):
        client.predict_upload(exiting_chunks(), timeout_s=LIMIT_S)
    assert server.requests == []


async def test_an_exit_in_the_chunks_is_raised_by_asyncio_and_nothing_is_labelled(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    with pytest.raises(SystemExit, match="bad file"):
        await async_client.predict_upload(exiting_chunks(), timeout_s=LIMIT_S)
    assert server.requests == []


async def given_up() -> None:
    """Wait for something that another one has cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel("given up")
    await future


async def test_what_was_cancelled_in_the_images_comes_after_the_answers(
    async_client: AsyncClient,
) -> None:
    async def images() -> AsyncIterator[tuple[int, bytes]]:
        yield 0, b"cat"
        await given_up()

    outcomes = async_client.predict_stream(images())
    assert (await anext(outcomes)).key == 0
    with pytest.raises(asyncio.CancelledError, match="given up"):
        await anext(outcomes)


async def test_what_was_cancelled_in_the_chunks_is_raised_and_nothing_is_labelled(
    server: FakeFrontEnd, async_client: AsyncClient
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        await given_up()

    with pytest.raises(asyncio.CancelledError, match="given up"):
        await async_client.predict_upload(chunks())
    assert server.requests == []


def test_an_unreadable_image_is_told_while_the_input_waits_for_that(client: Client) -> None:
    told = threading.Event()

    def images() -> Iterator[tuple[int, Path | bytes]]:
        for number in range(3):
            yield number, Path("missing.jpg")
            assert told.wait(LIMIT_S)
            told.clear()
        yield 3, b"cat"

    keys = []
    for outcome in client.predict_stream(images(), timeout_s=LIMIT_S):
        keys.append(outcome.key)
        told.set()
    assert keys == [0, 1, 2, 3]


async def test_an_unreadable_image_is_told_while_the_async_input_waits_for_that(
    async_client: AsyncClient,
) -> None:
    told = asyncio.Event()

    async def images() -> AsyncIterator[tuple[int, Path | bytes]]:
        for number in range(3):
            yield number, Path("missing.jpg")
            await told.wait()
            told.clear()
        yield 3, b"cat"

    keys = []
    async for outcome in async_client.predict_stream(images(), timeout_s=LIMIT_S):
        keys.append(outcome.key)
        told.set()
    assert keys == [0, 1, 2, 3]


@pytest.mark.parametrize("was_used", [False, True])
def test_a_client_that_is_closed_while_it_loads_an_image_calls_nobody(
    server: FakeFrontEnd, tmp_path: Path, *, was_used: bool
) -> None:
    client = Client(server.target)
    if was_used:
        client.health()
    slow = SlowFile(tmp_path, once_opened=client.close)
    threading.Timer(0, slow.end).start()
    with pytest.raises(Cancelled, match="closed"):
        client.predict(slow.path)
    assert server.requests == []


@pytest.mark.parametrize("was_used", [False, True])
async def test_an_async_client_that_is_closed_while_it_loads_an_image_calls_nobody(
    server: FakeFrontEnd, tmp_path: Path, *, was_used: bool
) -> None:
    client = AsyncClient(server.target)
    if was_used:
        await client.health()
    is_opened = threading.Event()
    slow = SlowFile(tmp_path, once_opened=is_opened.set)
    prediction = asyncio.create_task(client.predict(slow.path))
    await asyncio.to_thread(is_opened.wait, LIMIT_S)
    await client.close()
    await asyncio.to_thread(slow.end)
    with pytest.raises(Cancelled, match="closed"):
        await prediction
    assert server.requests == []


CALLS: dict[str, Callable[[Any], Any]] = {
    "predictions": lambda client: client.models(),
    "stream": lambda client: client.predict_stream([("k", b"cat")]),
    "operations": lambda client: client.operation("models/m/operations/o"),
    "admin": lambda client: client.admin.forget_model("m"),
    "stats": lambda client: client.admin.watch_stats(),
    "health": lambda client: client.health(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_closed_client_says_so(server: FakeFrontEnd, call: Callable[[Client], Any]) -> None:
    client = Client(server.target)
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        list(call(client))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_closed_async_client_says_so(
    server: FakeFrontEnd, call: Callable[[AsyncClient], Any]
) -> None:
    """What it would say otherwise comes from memory that gRPC has freed."""
    client = AsyncClient(server.target)
    async with client:
        await client.health()
    with pytest.raises(Cancelled, match="closed"):
        await _finished(call(client))


async def _finished(call: Awaitable[Any] | AsyncIterator[Any]) -> None:
    if isinstance(call, AsyncIterator):
        _ = [answer async for answer in call]
    else:
        await call
