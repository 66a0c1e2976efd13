"""Submitted here, fetched there, whatever dies in between.

Everything is real: a Valkey, front-end processes, worker processes. Only the
model is small.
"""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.longrunning import operations_pb2 as lro
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.protobuf.duration_pb2 import Duration

from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.operations import LOOK_AGAIN_S
from tests.stack import (
    RESUME,
    STALL,
    Colour,
    Stack,
    colour_of,
    details_of_status,
    image_of,
    reason_of,
    request_for,
)
from tests.worker_process import LABELS, MODEL

LIMIT_S = 30


class Front:
    """One front-end, as callers see it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.predictions = PredictionServiceStub(channel)
        self.operations: Any = OperationsStub(channel)

    async def submit(self, colour: Colour, *, request_id: str = "") -> lro.Operation:
        request = submission(image_of(colour), request_id=request_id)
        return await self.predictions.SubmitPrediction(request, timeout=LIMIT_S)

    async def get(self, name: str) -> lro.Operation:
        return await self.operations.GetOperation(
            lro.GetOperationRequest(name=name), timeout=LIMIT_S
        )

    async def wait(self, name: str, *, timeout_s: float = LIMIT_S) -> lro.Operation:
        return await self.operations.WaitOperation(
            lro.WaitOperationRequest(name=name), timeout=timeout_s
        )

    async def wait_through(self, name: str) -> lro.Operation:
        """Wait as a client does that comes again when the broker is away."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    return await self.wait(name)
                except grpc.aio.AioRpcError as error:
                    if reason_of(error) != "BROKER_UNAVAILABLE":
                        raise
                await asyncio.sleep(0.1)

    async def wait_shortly(self, name: str) -> lro.Operation:
        """Wait with little time; a machine that stands still at its end is tried again."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    return await self.wait(name, timeout_s=0.5)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise

    async def cancel(self, name: str) -> None:
        await self.operations.CancelOperation(
            lro.CancelOperationRequest(name=name), timeout=LIMIT_S
        )


def submission(image: bytes, *, request_id: str = "") -> pb.SubmitPredictionRequest:
    return pb.SubmitPredictionRequest(
        model=MODEL, image=image, top_k=len(LABELS), include_scores=True, request_id=request_id
    )


def colours(count: int) -> list[Colour]:
    return [(1 + i // 200, 1 + i % 200, 99) for i in range(count)]


def front_of(stack: Stack) -> Front:
    """Return the front-end started last."""
    return Front(stack.channel())


def response_of(operation: lro.Operation) -> pb.PredictResponse:
    response = pb.PredictResponse()
    assert operation.done, operation
    assert operation.response.Unpack(response), operation
    return response


def metadata_of(operation: lro.Operation) -> pb.PredictionMetadata:
    metadata = pb.PredictionMetadata()
    assert operation.metadata.Unpack(metadata)
    return metadata


async def test_what_one_front_end_accepted_another_one_answers(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker(inference_ms=200)
    await stack.until_ready()
    here = front_of(stack)
    stack.start_server()
    await stack.until_ready()
    there = front_of(stack)
    wanted = colours(20)
    submitted = await asyncio.gather(*map(here.submit, wanted))
    ended = await asyncio.gather(*(there.wait(each.name) for each in submitted))
    assert [colour_of(response_of(each)) for each in ended] == wanted
    # Found again where it was accepted, too.
    assert response_of(await here.get(submitted[0].name)) == response_of(ended[0])
    assert stack.totals() == {"accepted": 20, "completed": 20}
    stack.assert_nothing_is_left()


async def test_a_wait_is_over_when_the_operation_ends_and_not_when_it_looks_again(
    stack: Stack,
) -> None:
    stack.start_server()
    stack.start_worker(inference_ms=1000)
    await stack.until_ready()
    front = front_of(stack)
    for colour in colours(2):  # the first wait begins to watch the model, the second finds it so
        submitted = await front.submit(colour)
        async with asyncio.timeout(LOOK_AGAIN_S / 2):
            assert colour_of(response_of(await front.wait(submitted.name))) == colour


async def test_operations_outlive_the_front_end_that_accepted_them(stack: Stack) -> None:
    victim = stack.start_server()
    stack.start_worker(inference_ms=50)
    await stack.until_ready()
    here = front_of(stack)
    wanted = colours(100)
    submitted = await asyncio.gather(*map(here.submit, wanted))
    await asyncio.to_thread(victim.kill)
    stack.start_server()
    await stack.until_ready()
    there = front_of(stack)
    ended = await asyncio.gather(*(there.wait(each.name) for each in submitted))
    assert [colour_of(response_of(each)) for each in ended] == wanted
    stack.assert_nothing_is_left()


async def test_a_killed_worker_loses_no_operation(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=60_000)
    await stack.until_ready()
    front = front_of(stack)
    submitted = await front.submit((1, 2, 3))

    async def is_running() -> bool:
        metadata = metadata_of(await front.get(submitted.name))
        return metadata.state == pb.PREDICTION_STATE_RUNNING and metadata.attempt == 1

    await stack.until(is_running, 10)
    worker.kill()
    stack.start_worker()
    ended = await front.wait(submitted.name)
    assert colour_of(response_of(ended)) == (1, 2, 3)
    assert metadata_of(ended).attempt == 2
    stack.assert_nothing_is_left()


async def test_a_killed_redis_loses_no_operation(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    front = front_of(stack)
    worker.send(STALL)
    wanted = colours(10)
    submitted = await asyncio.gather(*map(front.submit, wanted))
    waiting = asyncio.gather(*(front.wait_through(each.name) for each in submitted))
    await asyncio.to_thread(stack.redis.wait_until_written)
    await asyncio.to_thread(stack.redis.kill)
    await asyncio.to_thread(stack.redis.start)
    worker.send(RESUME)
    assert [colour_of(response_of(each)) for each in await waiting] == wanted
    stack.assert_nothing_is_left()


async def test_what_is_accepted_without_a_worker_waits_for_one(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    front = front_of(stack)
    worker.terminate()
    await stack.until_ready(workers=0)
    submitted = await front.submit((4, 5, 6))
    # Returns what there is, and no error, when the caller's time is nearly over.
    assert not (await front.wait_shortly(submitted.name)).done
    at_once = lro.WaitOperationRequest(name=submitted.name, timeout=Duration())
    assert not (await front.operations.WaitOperation(at_once, timeout=LIMIT_S)).done
    stack.start_worker()
    assert colour_of(response_of(await front.wait(submitted.name))) == (4, 5, 6)


async def test_a_call_goes_before_all_operations(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=100, batch=2)
    await stack.until_ready()
    front = front_of(stack)
    worker.send(STALL)
    submitted = await asyncio.gather(*map(front.submit, colours(40)))
    call = asyncio.ensure_future(stack.stub().Predict(request_for((7, 7, 7)), timeout=LIMIT_S))
    await stack.until(lambda: stack.entries() == 41, 10)
    worker.send(RESUME)
    await call
    # A batch that was being computed, and one that was decoded already. By what the model was
    # given: until all of them were asked how they are, more would have ended.
    batches = stack.batches()
    assert sum(map(len, batches[: batches.index([(7, 7, 7)])])) <= 4
    await asyncio.gather(*(front.wait(each.name) for each in submitted))


async def test_a_bad_image_fails_its_own_operation(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    front = front_of(stack)
    bad, good = await asyncio.gather(
        front.predictions.SubmitPrediction(submission(image_of((1, 1, 1))[:40]), timeout=LIMIT_S),
        front.submit((2, 2, 2)),
    )
    ended = await front.wait(bad.name)
    assert details_of_status(ended.error)["ErrorInfo"].reason == "IMAGE_UNDECODABLE"
    assert response_of(await front.wait(good.name))
    stack.assert_nothing_is_left()


async def test_a_cancelled_operation_is_never_inferred(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    front = front_of(stack)
    worker.send(STALL)
    submitted = await front.submit((9, 9, 9))
    waiting = asyncio.ensure_future(front.wait(submitted.name))
    await front.cancel(submitted.name)
    assert (await waiting).error.code == grpc.StatusCode.CANCELLED.value[0]
    worker.send(RESUME)
    assert response_of(await front.wait((await front.submit((8, 8, 8))).name))
    assert (9, 9, 9) not in stack.inferred()
    stack.assert_nothing_is_left()


async def test_one_request_id_is_one_operation_at_any_front_end(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    here = front_of(stack)
    stack.start_server()
    await stack.until_ready()
    there = front_of(stack)
    request_id = str(uuid4())
    names = {
        (await each.submit((3, 3, 3), request_id=request_id)).name for each in (here, there, here)
    }
    assert len(names) == 1
    await there.wait(names.pop())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await there.submit((3, 3, 4), request_id=request_id)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    assert stack.inferred() == {(3, 3, 3): 1}


def blocked_readers(stack: Stack) -> int:
    """Return how many connections wait for something new in a stream that has no group."""
    with stack.redis.client() as client:
        found = client.client_list()
    return sum(each["cmd"] == "xread" and "b" in each["flags"] for each in found)


async def test_waiting_while_redis_is_away_is_an_error_only_at_the_end(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    front = front_of(stack)
    worker.send(STALL)
    submitted = await front.submit((1, 1, 9))
    # Its own limit: the timer of a caller might end before the reason has come.
    wait = lro.WaitOperationRequest(name=submitted.name, timeout=Duration(seconds=4))
    waiting = asyncio.ensure_future(front.operations.WaitOperation(wait, timeout=LIMIT_S))
    # The reader of replies to calls, and the one of operations that have ended.
    await stack.until(lambda: blocked_readers(stack) == 2, 10)
    await asyncio.to_thread(stack.redis.kill)
    ended, _ = await asyncio.wait([waiting], timeout=2)
    assert not ended
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    assert reason_of(caught.value) == "BROKER_UNAVAILABLE"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.submit((1, 1, 8))
    assert reason_of(caught.value) == "BROKER_UNAVAILABLE"
