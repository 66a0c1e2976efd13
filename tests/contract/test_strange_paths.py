"""A path of no method, or that is no text at all, ends nothing but the call that has it."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from deploy.address import free_port
from prediction.v1 import prediction_pb2 as pb
from tests.front_end import LIMIT_S, front_end

NOT_UTF_8 = b"/prediction.v1.PredictionService/\xff"


async def call(channel: grpc.aio.Channel, path: bytes) -> None:
    """Call a method that does not exist.

    Raises:
        AioRpcError: always.
    """
    to: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        path  # type: ignore[arg-type] # grpc.aio sends bytes as they are
    )
    await to(b"", timeout=LIMIT_S)


@pytest.mark.parametrize("path", [NOT_UTF_8, b"/\xff", b"/", b"/no.such.Service/Method", b"/a/b/c"])
async def test_it_is_told_that_the_method_does_not_exist(path: bytes) -> None:
    async with front_end() as front, grpc.aio.insecure_channel(front.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, path)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "Method not found!"


async def test_no_other_call_notices() -> None:
    async with front_end() as front, grpc.aio.insecure_channel(front.address) as channel:
        held = front.stub.Predict(pb.PredictRequest(image=b"hold"), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        for _ in range(20):
            strange = [asyncio.create_task(call(channel, NOT_UTF_8)) for _ in range(5)]
            answers = [
                front.stub.Predict(pb.PredictRequest(image=b"x"), timeout=LIMIT_S)
                for _ in range(20)
            ]
            for answer in answers:
                assert (await answer).worker == "worker-1"
            refusals = await asyncio.gather(*strange, return_exceptions=True)
            assert [type(refusal) for refusal in refusals] == [grpc.aio.AioRpcError] * 5
        front.relay.release_all()
        assert (await held).worker == "worker-1"


async def test_nor_does_the_port_of_health_checks() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with (
        front_end(health_address=address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, NOT_UTF_8)
        answer = await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
