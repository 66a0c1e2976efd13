"""Calls and operations in one worker: who goes first, and who must be alone.

Everything is real: a Valkey, a front-end process, worker processes. Only the
model is small.
"""

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest
from google.longrunning.operations_pb2 import GetOperationRequest
from google.longrunning.operations_pb2_grpc import OperationsStub

from dispatch import keys
from prediction.v1 import prediction_pb2
from tests.stack import (
    RESUME,
    STALL,
    Colour,
    Stack,
    colour_of,
    image_of,
    reason_of,
    request_for,
)
from tests.worker_process import CRASH, MODEL

LIMIT_S = 45.0


def operations(count: int) -> list[Colour]:
    return [(1, 1 + number, 200) for number in range(count)]


def calls(count: int) -> list[Colour]:
    return [(2, 1 + number, 77) for number in range(count)]


async def submit(stack: Stack, colours: list[Colour]) -> list[str]:
    """Submit one operation for each colour; return their names."""
    stub = stack.stub()
    requests = (
        prediction_pb2.SubmitPredictionRequest(model=MODEL, image=image_of(colour))
        for colour in colours
    )
    return [(await stub.SubmitPrediction(one, timeout=LIMIT_S)).name for one in requests]


async def attempts(stack: Stack, names: list[str]) -> set[int]:
    """Return the attempts at which operations were answered."""
    stub: Any = OperationsStub(stack.channel())
    found = set()
    for name in names:
        response = prediction_pb2.PredictResponse()
        operation = await stub.GetOperation(GetOperationRequest(name=name), timeout=LIMIT_S)
        assert operation.response.Unpack(response)
        found.add(response.timing.attempt)
    return found


async def test_a_call_waits_for_no_operation_but_those_in_the_model(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=300, batch=2)
    await stack.until_ready()
    await submit(stack, operations(14))
    await stack.until(lambda: len(stack.batches()) >= 2, LIMIT_S)
    # However long the call is on its way, it is there before the next batch begins.
    worker.send(STALL)
    before = len(stack.batches())
    (call,) = calls(1)
    answer = asyncio.ensure_future(stack.stub().Predict(request_for(call), timeout=LIMIT_S))
    await stack.until(lambda: stack.totals()["accepted"] == 15, LIMIT_S)
    worker.send(RESUME)
    assert colour_of(await answer) == call
    # The one that ran is on the list; another was decoded already.
    assert stack.batches().index([call]) <= before + 1
    await stack.until(lambda: stack.entries() == 0, LIMIT_S)
    assert stack.inferred() == dict.fromkeys([call, *operations(14)], 1)
    stack.assert_nothing_is_left()


async def test_calls_and_operations_are_never_in_one_batch(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker(inference_ms=20)
    await stack.until_ready()
    await submit(stack, operations(100))
    stub = stack.stub()
    answers = [stub.Predict(request_for(colour), timeout=LIMIT_S) for colour in calls(100)]
    assert [colour_of(answer) for answer in await asyncio.gather(*answers)] == calls(100)
    await stack.until(lambda: stack.entries() == 0, LIMIT_S)
    kinds = [{colour in operations(100) for colour in batch} for batch in stack.batches()]
    assert all(len(kind) == 1 for kind in kinds)
    assert stack.inferred() == dict.fromkeys(calls(100) + operations(100), 1)


def held(stack: Stack) -> Counter[bytes]:
    """Return how many jobs each worker has in hand, or had when it was lost."""
    found = Counter[bytes]()
    with stack.redis.client() as client:
        for stream in keys.job_streams(MODEL):
            for each in client.xpending(stream, keys.GROUP)["consumers"]:
                found[each["name"]] += int(each["pending"])
    return found


async def test_a_call_that_kills_workers_takes_no_operation_along(stack: Stack) -> None:
    stack.start_server()
    # So slow that operations are left when the second comes to the call, a lease later.
    first = stack.start_worker(inference_ms=500, batch=2)
    await stack.until_ready()
    await submit(stack, operations(100))
    poison = stack.stub().Predict(request_for(CRASH), timeout=LIMIT_S)
    await asyncio.to_thread(first.wait)
    left_behind = held(stack)
    second = stack.start_worker(inference_ms=500, batch=2)
    await asyncio.to_thread(second.wait, LIMIT_S)
    assert stack.entries() > held(stack).total()
    assert list((held(stack) - left_behind).values()) == [1]
    stack.start_worker(inference_ms=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await poison
    assert reason_of(caught.value) == "JOB_POISONED"
    await stack.until(lambda: stack.entries() == 0, LIMIT_S)
    # With no call beside it the first time, and with nothing at all the second.
    assert [batch for batch in stack.batches() if CRASH in batch] == [[CRASH], [CRASH]]
    assert stack.totals() == {"accepted": 101, "completed": 100, "poisoned": 1}
    stack.assert_nothing_is_left()


async def test_a_worker_that_stops_gives_operations_back(stack: Stack) -> None:
    stack.start_server()
    # No time to finish what is in hand.
    worker = stack.start_worker(inference_ms=500, batch=4, stop_grace_s=0)
    await stack.until_ready()
    names = await submit(stack, operations(20))
    await stack.until(lambda: len(stack.batches()) == 1, LIMIT_S)
    assert await asyncio.to_thread(worker.terminate) == 0
    assert "jobs given back" in worker.log
    stack.start_worker(batch=4)
    await stack.until(lambda: stack.entries() == 0, LIMIT_S)
    assert await attempts(stack, names) == {1}
    assert stack.totals() == {"accepted": 20, "completed": 20}
    stack.assert_nothing_is_left()
