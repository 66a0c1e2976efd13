"""Images that kill workers, and models whose workers have gone, through real processes."""

import asyncio
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub

from dispatch import keys
from prediction.v1 import admin_pb2, prediction_pb2
from prediction.v1.admin_pb2_grpc import AdminServiceStub
from tests.processes import Process
from tests.stack import (
    Colour,
    Stack,
    colour_of,
    details_of_status,
    image_of,
    reason_of,
    request_for,
)
from tests.worker_process import CRASH, MODEL

if TYPE_CHECKING:
    from prediction.v1.admin_pb2_grpc import AdminServiceAsyncStub

INNOCENT: Colour = (7, 8, 9)


async def list_letters(admin: "AdminServiceAsyncStub") -> list[admin_pb2.DeadLetter]:
    request = admin_pb2.ListDeadLettersRequest(model=MODEL)
    return list((await admin.ListDeadLetters(request, timeout=5)).dead_letters)


async def wait_for(stack: Stack, name: str) -> operations_pb2.Operation:
    request = operations_pb2.WaitOperationRequest(name=name)
    operation = await OperationsStub(stack.channel()).WaitOperation(request, timeout=40)
    assert isinstance(operation, operations_pb2.Operation)
    assert operation.done
    return operation


async def predict(
    stack: Stack, colour: Colour, *, request_id: str = "", timeout_s: float = 40
) -> prediction_pb2.PredictResponse:
    request = request_for(colour, request_id=request_id)
    return await stack.stub().Predict(request, timeout=timeout_s)


async def lose_two_workers(stack: Stack, worker: Process) -> Process:
    """Start a worker each time when one has died; return the one that sets the job aside."""
    for _ in range(2):
        await asyncio.to_thread(worker.wait)
        worker = stack.start_worker()
    return worker


@pytest.mark.timeout(120)  # four workers die, one lease after the other
async def test_a_poisonous_image_becomes_a_letter_and_after_a_replay_another_one(
    stack: Stack,
) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    admin = AdminServiceStub(stack.channel())
    assert await list_letters(admin) == []
    call = asyncio.create_task(predict(stack, CRASH, request_id="poison"))
    worker = await lose_two_workers(stack, worker)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert reason_of(caught.value) == "JOB_POISONED"

    (letter,) = await list_letters(admin)
    assert letter.request_id == "poison"
    assert (letter.deliveries, letter.reason, letter.top_k) == (2, "JOB_POISONED", 3)
    assert abs(letter.create_time.ToSeconds() - time.time()) < 30
    assert letter.image == b""
    found = await admin.GetDeadLetter(admin_pb2.GetDeadLetterRequest(name=letter.name), timeout=5)
    assert found.dead_letter.image == image_of(CRASH)
    assert found.dead_letter.size_bytes == letter.size_bytes > len(image_of(CRASH))

    replay = admin_pb2.ReplayDeadLetterRequest(name=letter.name)
    operation = await admin.ReplayDeadLetter(replay, timeout=5)
    assert await list_letters(admin) == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ReplayDeadLetter(replay, timeout=5)
    assert reason_of(caught.value) == "DEAD_LETTER_NOT_FOUND"
    await asyncio.to_thread(worker.wait)
    stack.start_worker(max_deliveries=2)
    ended = await wait_for(stack, operation.name)
    assert details_of_status(ended.error)["ErrorInfo"].reason == "JOB_POISONED"
    (again,) = await list_letters(admin)
    assert again.name != letter.name
    metadata = prediction_pb2.PredictionMetadata()
    assert ended.metadata.Unpack(metadata)
    assert again.request_id == metadata.request_id

    purge = admin_pb2.PurgeDeadLettersRequest(names=[letter.name, again.name])
    assert (await admin.PurgeDeadLetters(purge, timeout=5)).purged_count == 1
    assert await list_letters(admin) == []
    with stack.redis.client() as client:
        assert int(client.hget(keys.load(MODEL), "dead_bytes") or 0) == 0
    assert stack.totals() == {"accepted": 2, "poisoned": 2}


async def test_an_innocent_image_that_was_set_aside_is_labelled_by_a_replay(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=30_000, max_deliveries=2)
    await stack.until_ready()
    call = asyncio.create_task(predict(stack, INNOCENT))
    await stack.until(lambda: bool(stack.inferred()), 10)
    worker.kill()
    stack.start_worker(max_deliveries=2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert reason_of(caught.value) == "JOB_POISONED"
    admin = AdminServiceStub(stack.channel())
    (letter,) = await list_letters(admin)
    replay = admin_pb2.ReplayDeadLetterRequest(name=letter.name)
    operation = await admin.ReplayDeadLetter(replay, timeout=5)
    ended = await wait_for(stack, operation.name)
    response = prediction_pb2.PredictResponse()
    assert ended.response.Unpack(response)
    assert colour_of(response) == INNOCENT
    assert await list_letters(admin) == []
    assert stack.totals() == {"accepted": 2, "poisoned": 1, "completed": 1}


async def test_a_model_is_forgotten_when_its_last_worker_has_stopped(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    await predict(stack, INNOCENT)
    admin, stub = AdminServiceStub(stack.channel()), stack.stub()
    forget = admin_pb2.ForgetModelRequest(name=MODEL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ForgetModel(forget, timeout=5)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "MODEL_IN_USE"
    assert worker.terminate() == 0
    await admin.ForgetModel(forget, timeout=5)
    listed = await stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=5)
    assert not listed.models
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await predict(stack, INNOCENT, timeout_s=5)
    assert reason_of(caught.value) == "MODEL_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ForgetModel(forget, timeout=5)
    assert reason_of(caught.value) == "MODEL_NOT_FOUND"
    # Nor does the front-end read what nobody can write any more.
    with stack.redis.client() as client:
        await stack.until(lambda: not client.keys(keys.replies(MODEL, "*")), 5)
        await stack.until(
            lambda: not [each for each in client.client_list() if each["cmd"] == "xread"], 5
        )
    # Served again, it is known again, and calls are answered.
    stack.start_worker()
    await stack.until_ready()
    assert colour_of(await predict(stack, INNOCENT)) == INNOCENT
    stack.assert_nothing_is_left()
