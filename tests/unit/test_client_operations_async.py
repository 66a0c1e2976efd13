"""The asyncio client over a real connection: submitting, waiting, dead letters."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from client import AsyncClient, Cancelled, InvalidImage, NotFound, OperationState, Overloaded
from tests.fake_front_end import DRAINING, FULL, LIMIT_S, NO_WORKER
from tests.fake_operations import FakeOperations, RestingClock


@pytest.fixture
def server() -> Iterator[FakeOperations]:
    with FakeOperations() as server:
        yield server


@pytest.fixture
def clock() -> RestingClock:
    return RestingClock()


@pytest.fixture
async def client(server: FakeOperations, clock: RestingClock) -> AsyncIterator[AsyncClient]:
    """Rests without sleeping."""
    async with AsyncClient(server.target) as client:
        client._connection.patience = clock.patience
        client._connection.rest = clock.rest_async  # type: ignore[method-assign]
        yield client


async def arrived(server: FakeOperations) -> bool:
    return await asyncio.to_thread(server.slow_arrived.wait, LIMIT_S)


async def test_images_are_accepted_and_fetched(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(b"dog")
    accepted = await asyncio.gather(client.submit(b"cat"), client.submit(tmp_path / "dog.jpg"))
    assert {operation.state for operation in accepted} == {OperationState.QUEUED}
    done = await asyncio.gather(*(client.wait(operation.name) for operation in accepted))
    assert [operation.unwrap().labels[0].label for operation in done] == ["cat", "dog"]
    failed = await client.operation((await client.submit(b"bad")).name)
    assert isinstance(failed.error, InvalidImage)


async def test_a_submission_is_repeated_with_the_same_id(
    server: FakeOperations, client: AsyncClient, clock: RestingClock
) -> None:
    server.refusals = [NO_WORKER, FULL, FULL]
    await client.submit(b"cat")
    assert len(server.submitted) == 4
    assert len({request.request_id for request in server.submitted}) == 1
    assert len(clock.pauses_s) == 2


async def test_overload_is_waited_out_at_random_while_there_is_time(
    server: FakeOperations, client: AsyncClient, clock: RestingClock
) -> None:
    server.refusals = [FULL] * 99
    with pytest.raises(Overloaded) as caught:
        await client.predict(b"cat", timeout_s=30)
    assert caught.value.retry_after_s == 2.5
    assert min(clock.pauses_s) >= 2.5
    assert max(clock.pauses_s) <= 2.5 * 1.5
    assert len(set(clock.pauses_s)) == len(clock.pauses_s) == server.attempt_count - 1
    assert sum(clock.pauses_s) < 30


async def test_waiting_ends_with_the_operation(server: FakeOperations, client: AsyncClient) -> None:
    name = (await client.submit(b"slow")).name
    waiting = asyncio.create_task(client.wait(name))
    assert await arrived(server)
    server.finish(name)
    assert (await waiting).is_done


async def test_cancelling_the_task_ends_the_call_and_not_the_operation(
    server: FakeOperations, client: AsyncClient
) -> None:
    name = (await client.submit(b"slow")).name
    server.call_ended.clear()
    waiting = asyncio.create_task(client.wait(name))
    assert await arrived(server)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(server.call_ended.wait, LIMIT_S)
    assert not (await client.operation(name)).is_done


async def test_closing_the_client_does_not_cancel_the_task(
    server: FakeOperations, client: AsyncClient
) -> None:
    predicting = asyncio.create_task(client.predict(b"slow"))
    assert await arrived(server)
    await client.close()
    with pytest.raises(Cancelled):
        await predicting


async def test_closing_wakes_who_rests(server: FakeOperations) -> None:
    # With the real clock: the hint is 2.5 s, and nobody may wait that long.
    server.refusals = [FULL] * 99
    client = AsyncClient(server.target)
    resting = asyncio.Event()
    rest = client._connection.rest

    async def noted_rest(pause_s: float) -> None:
        resting.set()
        await rest(pause_s * 1000)

    client._connection.rest = noted_rest  # type: ignore[method-assign]
    predicting = asyncio.create_task(client.predict(b"cat"))
    await asyncio.wait_for(resting.wait(), LIMIT_S)
    await client.close()
    with pytest.raises(Cancelled):
        await predicting


async def test_a_rest_ends_by_itself() -> None:
    await AsyncClient()._connection.rest(0)


async def test_when_the_time_is_over_the_operation_is_returned_as_it_is(
    server: FakeOperations, client: AsyncClient, clock: RestingClock
) -> None:
    server.waits_at_all = False
    operation = await client.wait((await client.submit(b"slow")).name, timeout_s=30)
    assert operation.state is OperationState.QUEUED
    assert sum(clock.pauses_s) == pytest.approx(30)


async def test_waiting_survives_a_server_that_is_away(
    server: FakeOperations, client: AsyncClient, clock: RestingClock
) -> None:
    name = (await client.submit(b"cat")).name
    server.refusals = [DRAINING] * 17  # more than gRPC's own attempts
    assert (await client.wait(name)).is_done
    assert clock.pauses_s


async def test_all_pages_are_listed(client: AsyncClient) -> None:
    names = [(await client.submit(b"cat", model=model)).name for model in "aabab"]
    assert [operation.name async for operation in client.operations()] == names
    assert len([None async for _ in client.operations(model="b")]) == 2


async def test_an_operation_is_cancelled_and_deleted(client: AsyncClient) -> None:
    name = (await client.submit(b"slow")).name
    await client.cancel(name)
    assert isinstance((await client.operation(name)).error, Cancelled)
    await client.delete(name)
    with pytest.raises(NotFound):
        await client.operation(name)


async def test_dead_letters(server: FakeOperations, client: AsyncClient) -> None:
    names = [server.set_aside(image) for image in (b"one", b"two", b"three")]
    assert [letter.name async for letter in client.admin.dead_letters()] == names
    assert (await client.admin.dead_letter(names[0])).image == b"one"
    operation = await client.admin.replay_dead_letter(names[0])
    assert (await client.wait(operation.name)).unwrap().labels[0].label == "one"
    assert await client.admin.purge_dead_letters(names=names) == 2
    assert await client.admin.purge_dead_letters(all=True) == 0


async def test_a_model_is_forgotten(server: FakeOperations, client: AsyncClient) -> None:
    await client.admin.forget_model("old")
    assert server.models == {"default", "busy"}
