"""What a caller sees when a front-end is stopped or killed, and what it leaves behind.

Everything is real: a Valkey, a front-end process, a worker process. Only the model is small.
"""

import asyncio
import math
import signal
import threading

import grpc
import pytest

from client import AsyncClient, Client, PredictionResult, Unreachable
from client.patience import Patience
from dispatch import keys
from prediction.v1 import admin_pb2, admin_pb2_grpc
from tests.stack import (
    RESUME,
    STALL,
    Stack,
    colour_of,
    colours,
    image_of,
    reason_of,
    request_for,
)
from tests.worker_process import MODEL


async def test_a_stopped_front_end_lets_its_calls_end(stack: Stack) -> None:
    server = stack.start_server()
    stack.start_worker(inference_ms=1500)
    await stack.until_ready()
    answer = asyncio.create_task(stack.predict_all([(7, 8, 9)]))
    await stack.until(lambda: bool(stack.inferred()), 10)
    server.send(signal.SIGTERM)
    (response,) = await answer
    assert colour_of(response) == (7, 8, 9)
    assert await asyncio.to_thread(server.wait) == 0
    stack.assert_nothing_is_left()


async def test_a_front_end_that_cuts_calls_off_retires_their_jobs(stack: Stack) -> None:
    server = stack.start_server(drain_s=1.5)
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    stub = stack.stub()
    calls = [stub.Predict(request_for(colour), timeout=30) for colour in colours(5)]
    await stack.until(lambda: stack.entries() == 5, 10)
    server.send(signal.SIGTERM)
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, grpc.aio.AioRpcError)
        assert outcome.code() == grpc.StatusCode.UNAVAILABLE
        assert reason_of(outcome) == "DRAINING"
    assert await asyncio.to_thread(server.wait) == 0
    assert stack.entries() == 0
    assert stack.totals() == {"accepted": 5, "cancelled": 5}


async def test_a_killed_front_end_leaves_nothing_behind(stack: Stack) -> None:
    server = stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    waiting = asyncio.create_task(stack.predict_all(colours(5), timeout_s=20))
    await stack.until(lambda: stack.entries() == 5, 10)
    server.kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    with stack.redis.client() as client:
        for key in client.keys(keys.replies(MODEL, "*").replace("{", "[{]").replace("}", "[}]")):
            client.delete(key)  # what its life ending would do, after a minute
    worker.send(RESUME)
    await stack.until(lambda: stack.entries() == 0, 10)
    assert stack.totals() == {"accepted": 5, "orphaned": 5}


async def test_calls_of_a_killed_front_end_end_though_no_worker_ever_comes_back(
    stack: Stack,
) -> None:
    server = stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(signal.SIGTERM)
    await asyncio.to_thread(worker.wait)
    waiting = asyncio.create_task(stack.predict_all(colours(2), timeout_s=3))
    await stack.until(lambda: stack.entries() == 2, 10)
    server.kill()
    with pytest.raises(grpc.aio.AioRpcError):
        await waiting
    stack.start_server()
    # 3 s, and 5 in which a worker might have come, and up to 10 until the next look.
    await stack.until(lambda: stack.entries() == 0, 30)
    assert stack.totals() == {"accepted": 2, "expired": 2}
    stack.assert_nothing_is_left()
    admin = admin_pb2_grpc.AdminServiceStub(stack.channel())
    await admin.ForgetModel(admin_pb2.ForgetModelRequest(name=MODEL))
    with stack.redis.client() as client:
        assert not client.exists(*keys.job_streams(MODEL))


class Rests:
    """What a client notes before it tries again by itself, after gRPC has given up."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def patience(self, timeout_s: float) -> Patience:
        return Patience(timeout_s, uniform=self._uniform)

    def _uniform(self, least: float, _: float) -> float:
        self.begun.set()
        return least


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_client_waits_for_a_front_end_that_is_started_again(
    stack: Stack, kind: type[Client | AsyncClient]
) -> None:
    server = stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    rests = Rests()
    client = kind(stack.address)
    client._connection.patience = rests.patience

    async def predict() -> PredictionResult:
        if isinstance(client, AsyncClient):
            return await client.predict(image_of((7, 8, 9)), timeout_s=60)
        return await asyncio.to_thread(client.predict, image_of((7, 8, 9)), timeout_s=60)

    first = await predict()
    server.kill()
    answer = asyncio.create_task(predict())
    assert await asyncio.to_thread(rests.begun.wait, 30)
    stack.start_server(address=stack.address)
    assert (await answer).labels == first.labels
    await stack.until(lambda: stack.entries() == 0, 10)
    if isinstance(client, AsyncClient):
        await client.close()
    else:
        client.close()


def test_an_address_where_nobody_ever_answered_is_not_waited_for(stack: Stack) -> None:
    server = stack.start_server()
    server.kill()
    with Client(stack.address) as client, pytest.raises(Unreachable):
        client.predict(image_of((7, 8, 9)), timeout_s=math.inf)
