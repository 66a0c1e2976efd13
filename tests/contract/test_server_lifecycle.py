"""How the server starts, and how it lets calls end."""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.binding import CannotListen
from tests.front_end import LIMIT_S, front_end
from tests.raw_call import message, raw_call
from tests.stoppable import Stoppable


def stoppable() -> Stoppable:
    # The notice never runs out by itself here: only the last call ends it.
    return Stoppable(front_end(drain_notice_s=LIMIT_S, drain_s=LIMIT_S))


async def begin_to_stop(running: Stoppable, channel: grpc.aio.Channel) -> "asyncio.Task[None]":
    """Return when `channel` can see that it stops."""
    watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    end = running.stop()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    return end


def reason(error: grpc.aio.AioRpcError) -> str:
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(packed).details)
    return str(info.reason)


async def test_a_draining_server_finishes_calls_and_refuses_new_ones() -> None:
    async with (
        stoppable() as running,
        grpc.aio.insecure_channel(running.front.address) as channel,
    ):
        front = running.front
        stub = PredictionServiceStub(channel)
        pending = asyncio.ensure_future(_predict(stub, b"hold"))
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        end = await begin_to_stop(running, channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(pb.PredictRequest(image=b"late"), timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(caught.value) == "DRAINING"
        assert len(front.relay.submitted) == 1
        front.relay.release_all()
        assert (await pending).worker == "worker-1"
        async with asyncio.timeout(LIMIT_S):
            await end


async def test_a_draining_server_answers_whoever_had_begun_to_send() -> None:
    sent = message(pb.PredictRequest(image=b"late" * 1000).SerializeToString())
    async with (
        stoppable() as running,
        grpc.aio.insecure_channel(running.front.address) as channel,
        raw_call(running.front.address, "/prediction.v1.PredictionService/Predict") as call,
    ):
        call.send(sent[:2000])
        await call.until_read()
        # One that came later, and is over, so that the server knows of the other as well.
        await _predict(PredictionServiceStub(channel), b"photo")
        end = await begin_to_stop(running, channel)
        call.send(sent[2000:], is_last=True)
        assert b"worker-1" in await call.until(b"grpc-status")
        async with asyncio.timeout(LIMIT_S):
            await end


async def test_a_message_that_never_comes_holds_up_the_end_no_longer_than_calls() -> None:
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(front_end(drain_s=0.1))
        async with raw_call(front.address, "/prediction.v1.PredictionService/Predict") as call:
            await call.until_read()
            await _predict(front.stub, b"photo")
            async with asyncio.timeout(LIMIT_S):
                await stack.aclose()


async def test_a_draining_server_sends_those_who_wait_for_operations_elsewhere() -> None:
    async with (
        stoppable() as running,
        grpc.aio.insecure_channel(running.front.address) as channel,
    ):
        front = running.front
        submitted = await PredictionServiceStub(channel).SubmitPrediction(
            pb.SubmitPredictionRequest(image=b"image"), timeout=LIMIT_S
        )
        waiting = asyncio.ensure_future(_wait(channel, submitted.name))
        await front.operations.notice.until(lambda: front.operations.waiting == 1)
        end = await begin_to_stop(running, channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await waiting
        assert reason(caught.value) == "DRAINING"
        async with asyncio.timeout(LIMIT_S):
            await end


async def _wait(channel: grpc.aio.Channel, name: str) -> None:
    request = operations_pb2.WaitOperationRequest(name=name)
    await OperationsStub(channel).WaitOperation(request, timeout=LIMIT_S)


async def _predict(stub: PredictionServiceStub, image: bytes) -> pb.PredictResponse:
    response = await stub.Predict(pb.PredictRequest(image=image), timeout=LIMIT_S)  # type: ignore[misc]
    assert isinstance(response, pb.PredictResponse)
    return response


async def test_a_draining_server_answers_what_a_stream_has_sent_and_ends_it() -> None:
    async with (
        stoppable() as running,
        grpc.aio.insecure_channel(running.front.address) as channel,
    ):
        front = running.front
        stub = PredictionServiceStub(channel)
        stream = stub.PredictStream(timeout=LIMIT_S)
        request = pb.PredictRequest(image=b"hold", request_id="held")
        await stream.write(pb.PredictStreamRequest(request=request))
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        end = await begin_to_stop(running, channel)
        front.relay.release_all()
        response = await stream.read()
        assert isinstance(response, pb.PredictStreamResponse)
        assert response.request_id == "held"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert reason(caught.value) == "DRAINING"
        async with asyncio.timeout(LIMIT_S):
            await end


async def test_calls_that_do_not_end_are_cut_off_with_a_reason() -> None:
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(front_end(drain_s=0.1))
        async with grpc.aio.insecure_channel(front.address) as channel:
            stub = PredictionServiceStub(channel)
            pending = asyncio.ensure_future(_predict(stub, b"hold"))
            await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
            await stack.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await pending
            assert reason(caught.value) == "DRAINING"


async def test_a_taken_address_is_a_clear_error() -> None:
    async with front_end() as front:
        with pytest.raises(CannotListen, match="in use"):
            async with front_end(address=front.address):
                pass


@pytest.mark.parametrize("setting", ["address", "health_address"])
async def test_a_name_is_taken_if_one_of_its_addresses_is(setting: str) -> None:
    # `localhost` is ::1 as well, where nobody listens.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match="in use"):
            async with front_end(**{setting: address}):  # type: ignore[arg-type] # a setting
                pass
    async with front_end(**{setting: address}) as front:  # type: ignore[arg-type] # a setting
        assert (await _predict(front.stub, b"x")).worker == "worker-1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such sockets")
async def test_an_abstract_socket_has_one_server() -> None:
    address = f"unix-abstract:despacho-{uuid4()}"
    async with front_end(address=address) as front:
        assert front.address == address
        assert (await _predict(front.stub, b"x")).worker == "worker-1"
        with pytest.raises(CannotListen, match="in use"):
            async with front_end(address=address):
                pass


@pytest.mark.parametrize("prefix", ["unix:", "unix://"])
async def test_a_taken_unix_socket_stays_with_its_server(tmp_path: Path, prefix: str) -> None:
    address = f"{prefix}{tmp_path / 'socket'}"
    async with front_end(address=address) as front:
        with pytest.raises(CannotListen, match="in use"):
            async with front_end(address=address):
                pass
        # Over a new connection: the old one would last in any case.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(front.address, options=options) as channel:
            response = await _predict(PredictionServiceStub(channel), b"x")
            assert response.worker == "worker-1"


async def test_the_unix_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.exists()
    async with front_end(address=f"unix:{path}") as front:
        assert (await _predict(front.stub, b"x")).worker == "worker-1"


async def test_the_server_listens_on_a_unix_socket(tmp_path: Path) -> None:
    async with front_end(address=f"unix:{tmp_path / 'socket'}") as front:
        response = await front.stub.Predict(pb.PredictRequest(image=b"x"), timeout=LIMIT_S)
        assert response.worker == "worker-1"
