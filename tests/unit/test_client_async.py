"""The asyncio client over a real connection."""

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest

from client import (
    AsyncClient,
    Cancelled,
    DeadlineExceeded,
    Health,
    InvalidImage,
    NotFound,
    Overloaded,
    Unavailable,
    Unreachable,
)
from tests.fake_front_end import LIMIT_S, LOADING, NO_WORKER, FakeFrontEnd

LARGE = b"large " + bytes(1024 * 1024)
"""More than gRPC keeps for a retry by default."""


@pytest.fixture
def server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as server:
        yield server


@pytest.fixture
async def client(server: FakeFrontEnd) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target) as client:
        yield client


async def ended(server: FakeFrontEnd) -> bool:
    return await asyncio.to_thread(server.call_ended.wait, LIMIT_S)


@pytest.mark.parametrize("timeout_s", [1e10, math.inf])
async def test_a_call_may_last_for_ever(client: AsyncClient, timeout_s: float) -> None:
    assert (await client.predict(b"cat", timeout_s=timeout_s)).labels[0].label == "cat"
    uploaded = await client.predict_upload([b"cat"], timeout_s=timeout_s)
    assert uploaded.labels[0].label == "cat"
    async for outcome in client.predict_stream([("k", b"cat")], timeout_s=timeout_s):
        assert outcome.unwrap().labels[0].label == "cat"


async def test_bytes_and_paths_are_labelled(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(b"dog")
    results = await asyncio.gather(
        client.predict(b"cat", request_id="r-1"), client.predict(tmp_path / "dog.jpg")
    )
    assert [result.labels[0].label for result in results] == ["cat", "dog"]
    assert results[0].request_id == "r-1"


async def test_details_of_an_error_become_attributes(client: AsyncClient) -> None:
    with pytest.raises(InvalidImage) as caught:
        await client.predict(b"bad", request_id="r-1")
    assert (caught.value.reason, caught.value.field) == ("IMAGE_UNDECODABLE", "image")
    assert caught.value.request_id == "r-1"


async def test_a_large_image_is_retried_when_the_server_says_so(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    server.refusals_left = 2
    assert (await client.predict(LARGE)).labels[0].label == "large"
    assert server.attempt_count == 3


async def test_a_hint_beyond_the_deadline_is_an_error_at_once(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    with pytest.raises(Overloaded) as caught:
        await client.predict(b"full", timeout_s=2)
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 2.5)
    assert server.attempt_count == 1


async def test_the_end_of_the_time_says_why_the_attempts_before_failed(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    # After five attempts the client rests; then gRPC would rest for longer than there is time.
    server.refusals = [NO_WORKER] * 5 + [LOADING]
    with pytest.raises(DeadlineExceeded, match="no worker is alive") as caught:
        await client.predict(b"cat", timeout_s=4)
    assert (caught.value.reason, caught.value.retry_after_s) == ("NO_WORKER", 0.01)


async def test_whoever_was_answered_in_any_way_waits_for_the_server(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    with pytest.raises(InvalidImage):
        await client.predict(b"bad")
    assert client._connection._was_reached
    async with AsyncClient(server.target) as other:
        _ = [outcome async for outcome in other.predict_stream([("k", b"cat")])]
        assert other._connection._was_reached


async def test_cancelling_the_task_cancels_the_call(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    task = asyncio.create_task(client.predict(b"slow"))
    assert await asyncio.to_thread(server.slow_arrived.wait, LIMIT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ended(server)


async def test_models_and_health(client: AsyncClient) -> None:
    (listed,) = await client.models()
    assert (listed.name, listed.labels) == ("default", ())
    assert (await client.model()).labels == ("a", "other", "b", "c")
    assert await client.health() is Health.SERVING
    with pytest.raises(NotFound):
        await client.health("nothing")


async def test_nobody_at_the_address(tmp_path: Path) -> None:
    async with AsyncClient(f"unix:{tmp_path}/nobody") as client:
        with pytest.raises(Unreachable):
            await client.health()


async def test_a_client_that_was_never_used_closes() -> None:
    await AsyncClient().close()


async def test_a_client_that_was_never_used_closes_the_channel_it_was_given() -> None:
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    method: Any = channel.unary_unary("/service/Method")
    await AsyncClient(over=channel).close()
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await method(b"")


async def numbered(*images: bytes) -> AsyncIterator[tuple[int, bytes]]:
    for pair in enumerate(images):
        yield pair


async def test_one_bad_image_does_not_end_the_stream(client: AsyncClient) -> None:
    stream = client.predict_stream(numbered(b"cat", b"bad", b"", b"dog"))
    outcomes = {outcome.key: outcome async for outcome in stream}

    assert outcomes[0].unwrap().labels[0].label == "cat"
    assert outcomes[3].unwrap().labels[0].label == "dog"
    errors = {key: outcome.error.reason for key, outcome in outcomes.items() if outcome.error}
    assert errors == {1: "IMAGE_UNDECODABLE", 2: "IMAGE_EMPTY"}


async def test_a_list_will_do(client: AsyncClient) -> None:
    stream = client.predict_stream([("a", b"cat"), ("b", b"dog")])
    assert {outcome.key async for outcome in stream} == {"a", "b"}


async def test_a_broken_stream_names_the_unanswered(client: AsyncClient) -> None:
    async with aclosing(client.predict_stream(numbered(b"", b"break"))) as outcomes:
        assert (await anext(outcomes)).key == 0
        with pytest.raises(Unavailable) as caught:
            await anext(outcomes)
    assert (caught.value.reason, caught.value.unanswered) == ("DRAINING", (1,))


async def test_the_input_is_read_no_faster_than_the_server(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    many_taken = asyncio.Event()

    async def images() -> AsyncIterator[tuple[int, bytes]]:
        for key in itertools.count():
            if key == 200:
                many_taken.set()
            yield key, LARGE

    server.may_read.clear()
    async with aclosing(client.predict_stream(images())) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        # Not a pause to get something done: the event must *not* come.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(many_taken.wait(), 0.5)
        server.may_read.set()
        assert (await first).key == 0
    assert await ended(server)


async def test_leaving_the_loop_cancels_the_call(server: FakeFrontEnd, client: AsyncClient) -> None:
    async for outcome in client.predict_stream(zip(itertools.count(), itertools.repeat(b"cat"))):
        assert outcome.result is not None
        break
    assert await ended(server)


async def test_cancelling_the_task_cancels_the_stream(
    server: FakeFrontEnd, client: AsyncClient
) -> None:
    outcomes = client.predict_stream(numbered(b"slow"))
    task = asyncio.ensure_future(anext(outcomes))
    assert await asyncio.to_thread(server.slow_arrived.wait, LIMIT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ended(server)


async def test_closing_the_client_ends_a_stream_and_not_the_task(server: FakeFrontEnd) -> None:
    client = AsyncClient(server.target)
    outcomes = client.predict_stream(numbered(b"slow"))
    task = asyncio.ensure_future(anext(outcomes))
    assert await asyncio.to_thread(server.slow_arrived.wait, LIMIT_S)
    await client.close()
    with pytest.raises(Cancelled):
        await task


async def test_what_the_input_raises_comes_after_the_answers(client: AsyncClient) -> None:
    async def images() -> AsyncIterator[tuple[str, bytes]]:
        yield "k", b"cat"
        raise ZeroDivisionError

    outcomes = client.predict_stream(images())
    assert (await anext(outcomes)).key == "k"
    with pytest.raises(ZeroDivisionError):
        await anext(outcomes)


async def test_a_long_stream_goes_on_over_fresh_calls(
    server: FakeFrontEnd, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The time to take images is over as soon as one was taken.
    monkeypatch.setattr("client.async_client.FEEDING_SHARE", 0)
    stream = client.predict_stream(numbered(b"cat", b"cat", b"cat"))
    assert [outcome.key async for outcome in stream] == [0, 1, 2]
    assert server.stream_count == 3
