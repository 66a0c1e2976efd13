"""Situations of a real system in which a caller cannot have what it asks for, one for each error.

Whatever a situation needs is really there: a worker that was killed, a Redis that
is gone, a model that takes for ever.
"""

import asyncio
import io
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import grpc
import pytest
from google.longrunning import operations_pb2 as lro
from google.rpc import status_pb2
from PIL import Image

from client import Health, ModelState
from dispatch import keys
from prediction.v1 import admin_pb2
from prediction.v1 import prediction_pb2 as pb
from tests.error_world import APPEARS_S, FRAGILE, GONE, LOADING, MOST_JOBS, SLOW, World
from tests.every_way import REQUEST_ID, Caller, Told, caller_of, raised_by
from tests.processes import Process
from tests.stack import image_of
from tests.worker_process import CRASH, MODEL

GOOD: Final = image_of((7, 8, 9))
UUID: Final = "11111111-2222-4333-8444-555555555555"

Situation: TypeAlias = Callable[[World], Awaitable[list[Told]]]


def asking(image: bytes = GOOD, *, model: str = MODEL, top_k: int = 1) -> Situation:
    """Ask for the labels of an image, in every way."""
    request = pb.PredictRequest(model=model, image=image, top_k=top_k)

    async def ask(world: World) -> list[Told]:
        return await world.caller.by_all(request)

    return ask


def asking_with(key: str) -> Situation:
    """Ask in every way, with a key of ours or what is none; empty: with nothing."""

    async def ask(world: World) -> list[Told]:
        async with caller_of(world.address, world.keys.get(key, key)) as caller:
            return await caller.by_all(pb.PredictRequest(model=MODEL, image=GOOD))

    return ask


def large_image() -> bytes:
    """Return few bytes with more pixels than the worker accepts."""
    buffer = io.BytesIO()
    Image.new("1", (1000, 1000)).save(buffer, "PNG")
    return buffer.getvalue()


async def nothing(world: World) -> list[Told]:
    """Send no image. The client would not even send the question."""
    request = pb.PredictRequest(model=MODEL)
    caller = world.caller
    ways = (caller.by_call, caller.by_upload, caller.by_stream, caller.by_batch)
    return [*[await way(request) for way in ways], await caller.by_upload_of_client(request)]


async def a_used_request_id(world: World) -> list[Told]:
    """Submit another image under the id of one that was submitted."""
    await world.caller.client.submit(GOOD, model=MODEL, request_id=UUID)
    other = image_of((1, 1, 1))
    submission = pb.SubmitPredictionRequest(model=MODEL, image=other, request_id=UUID)
    return await submitted(world, submission, request_id=UUID)


async def no_append_only_file(world: World) -> list[Told]:
    """Want an operation to be on a disk that Redis does not use."""
    submission = pb.SubmitPredictionRequest(
        model=MODEL, image=GOOD, durability=pb.DURABILITY_SYNCED
    )
    with world.redis.client() as redis:
        redis.config_set("appendonly", "no")
        try:
            return await submitted(world, submission, synced=True)
        finally:
            redis.config_set("appendonly", "yes")
            await world.until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])


async def submitted(
    world: World, submission: pb.SubmitPredictionRequest, **options: Any
) -> list[Told]:
    caller = world.caller
    return [
        await caller.refusal(caller.predictions.SubmitPrediction, submission),
        await raised_by(caller.client.submit(submission.image, model=MODEL, **options)),
    ]


async def no_such_operation(world: World) -> list[Told]:
    """Ask for an operation that never was."""
    return await looked_at(world, f"models/{MODEL}/operations/{'0' * 32}")


async def a_damaged_record(world: World) -> list[Told]:
    """Ask for an operation whose record somebody has damaged."""
    operation = await world.caller.client.submit(GOOD, model=MODEL)
    await world.caller.client.wait(operation.name)
    with world.redis.client() as redis:
        record = keys.operation(MODEL, operation.name.rpartition("/")[2])
        redis.hset(record, "job", b"\xff")
    told = await looked_at(world, operation.name)
    # As the advice says, the log has what happened under the id of the call.
    await asyncio.to_thread(
        world.server.wait_for_line, f"(?=.*unexpected error)(?=.*{REQUEST_ID}).*DecodeError"
    )
    return told


async def looked_at(world: World, name: str) -> list[Told]:
    caller = world.caller
    request = lro.GetOperationRequest(name=name)
    return [
        await caller.refusal(caller.operations.GetOperation, request),
        await raised_by(caller.client.operation(name)),
    ]


async def a_cancelled_operation(world: World) -> list[Told]:
    """Cancel an operation that was not done, and ask what became of it."""
    caller = world.caller
    operation = await caller.client.submit(GOOD, model=SLOW)
    await caller.client.cancel(operation.name)
    request = lro.GetOperationRequest(name=operation.name)
    ended = await caller.begin(caller.operations.GetOperation, request)
    error: status_pb2.Status = ended.error

    async def result() -> None:
        (await caller.client.operation(operation.name)).unwrap()

    return [error, await raised_by(result())]


async def no_such_letter(world: World) -> list[Told]:
    """Ask for a dead letter that never was."""
    name = f"models/{MODEL}/deadLetters/1-0"
    caller = world.caller
    request = admin_pb2.GetDeadLetterRequest(name=name)
    return [
        await caller.refusal(caller.admin.GetDeadLetter, request),
        await raised_by(caller.client.admin.dead_letter(name)),
    ]


async def a_model_with_a_worker(world: World) -> list[Told]:
    """Want a model to be forgotten that is served."""
    caller = world.caller
    request = admin_pb2.ForgetModelRequest(name=MODEL)
    return [
        await caller.refusal(caller.admin.ForgetModel, request),
        await raised_by(caller.client.admin.forget_model(MODEL)),
    ]


async def a_narrow_key(world: World) -> list[Told]:
    """Submit with a key that is only good for calls."""
    async with caller_of(world.address, world.keys["narrow"]) as caller:
        submission = pb.SubmitPredictionRequest(model=MODEL, image=GOOD)
        return [
            await caller.refusal(caller.predictions.SubmitPrediction, submission),
            await raised_by(caller.client.submit(GOOD, model=MODEL)),
        ]


async def a_hasty_caller(world: World) -> list[Told]:
    """Ask more often than the key may."""
    request = pb.PredictRequest(model=MODEL, image=GOOD)
    async with caller_of(world.address, world.keys["hasty"]) as caller:
        await caller.begin(caller.predictions.Predict, request)
        return await caller.by_all(request)


async def a_full_queue(world: World) -> list[Told]:
    """Ask while as many wait as may."""
    request = pb.PredictRequest(model=SLOW, image=GOOD)
    waiting = [
        world.caller.begin(world.caller.predictions.Predict, request) for _ in range(MOST_JOBS)
    ]
    await world.until(lambda: world.entries(SLOW) == MOST_JOBS)
    try:
        return await world.caller.by_all(request)
    finally:
        for call in waiting:
            call.cancel()
        await world.until(lambda: world.entries(SLOW) == 0)


async def a_killed_worker(world: World) -> list[Told]:
    """Ask for a model whose last worker was killed."""
    await world.until_seen(GONE, ModelState.NO_WORKER)
    return await asking(model=GONE)(world)


async def a_loading_worker(world: World) -> list[Told]:
    """Ask for a model that its worker is still loading."""
    await world.until_seen(LOADING, ModelState.LOADING)
    return await asking(model=LOADING)(world)


async def no_redis(world: World) -> list[Told]:
    """Ask after Redis was killed."""
    client = world.caller.client

    async def is_ready() -> bool:
        return await client.health("readiness") is Health.SERVING

    async def is_noticed() -> bool:
        return not await is_ready()

    await asyncio.to_thread(world.redis.kill)
    try:
        await world.until(is_noticed)
        return await asking()(world)
    finally:
        await asyncio.to_thread(world.redis.start)
        await world.until(is_ready)
        await world.until_seen(MODEL, ModelState.READY)


async def a_deadline_that_passes(world: World) -> list[Told]:
    """Ask a worker that does not come to it in time, of a front-end that has little patience."""
    async with another_server(world, max_deadline_s=1) as (_, caller):
        await world.until_seen(SLOW, ModelState.READY, caller)
        return await caller.by_all(pb.PredictRequest(model=SLOW, image=GOOD))


async def a_server_that_stops(world: World) -> list[Told]:
    """Have a stream open while the front-end is told to stop."""
    request = pb.PredictStreamRequest(request=pb.PredictRequest(model=MODEL, image=GOOD))
    async with another_server(world) as (process, caller):
        await world.until_seen(MODEL, ModelState.READY, caller)
        held = asyncio.Event()

        async def images() -> AsyncIterator[tuple[int, bytes]]:
            yield 1, GOOD
            await held.wait()

        answers = caller.client.predict_stream(images(), model=MODEL)
        assert (await anext(answers)).unwrap().labels
        call = caller.begin(caller.predictions.PredictStream, None)
        await call.write(request)
        assert (await call.read()).response.predictions
        process.send(signal.SIGTERM)
        return [await ended(call), await raised_by(anext(answers))]


async def ended(call: Any) -> grpc.RpcError:
    """Return how a stream ends that has no more answers."""
    with pytest.raises(grpc.RpcError) as caught:
        await call.read()
    return caught.value


@asynccontextmanager
async def another_server(world: World, **settings: object) -> AsyncIterator[tuple[Process, Caller]]:
    process, address = await world.start_server(**settings)
    async with caller_of(address, world.keys["all"]) as caller:
        yield process, caller
    await asyncio.to_thread(process.terminate)


async def a_poisonous_image(world: World) -> list[Told]:
    """Ask for the labels of an image that kills its worker."""
    request = pb.PredictRequest(model=FRAGILE, image=image_of(CRASH))
    caller = world.caller
    replacing = asyncio.create_task(replaced(world))
    try:
        return [*await asyncio.gather(caller.by_call(request), caller.by_client(request))]
    finally:
        replacing.cancel()
        with suppress(asyncio.CancelledError):
            await replacing


async def replaced(world: World) -> None:
    """Start another fragile worker whenever one has died."""
    worker = world.fragile
    while True:
        await asyncio.to_thread(worker.wait, APPEARS_S)
        worker = world.start_worker(FRAGILE)
