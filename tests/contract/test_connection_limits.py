"""What one connection may do, and for how long."""

import asyncio
import struct
from typing import Any

import grpc
import pytest

from client import AsyncClient
from client import channel as client_channel
from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server import grpc_server
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.raw_call import raw_call
from tests.stack import refusal
from tests.wire import wire_to

IMAGE = pb.PredictRequest(image=b"photo")
HELD = pb.PredictRequest(image=b"hold")

# A subchannel of the same arguments would be used again.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


async def until_not(channel: grpc.aio.Channel, state: grpc.ChannelConnectivity) -> None:
    async with asyncio.timeout(LIMIT_S):
        await channel.wait_for_state_change(state)


async def until_submitted(front: FrontEnd, count: int) -> None:
    await front.relay.notice.until(lambda: len(front.relay.submitted) == count)


async def test_calls_of_one_connection_have_a_limit_and_others_do_not_wait() -> None:
    async with front_end(max_concurrent_streams=2) as front:
        images = [b"hold 1", b"hold 2", b"hold 3"]
        calls: list[Any] = []
        for image in images:
            calls.append(front.stub.Predict(pb.PredictRequest(image=image), timeout=LIMIT_S))
            await until_submitted(front, min(len(calls), 2))
        async with grpc.aio.insecure_channel(front.address, options=OWN_CONNECTION) as other:
            await PredictionServiceStub(other).Predict(IMAGE, timeout=LIMIT_S)
        assert [each.image for each in front.relay.submitted] == [*images[:2], IMAGE.image]
        front.relay.release_all()
        for call in calls:
            await call
        assert [each.image for each in front.relay.submitted] == [*images[:2], b"photo", images[2]]


async def test_an_old_connection_is_replaced_and_its_calls_end_first() -> None:
    async with front_end(max_connection_age_s=0.2) as front:
        held = asyncio.ensure_future(front.stub.Predict(HELD, timeout=LIMIT_S))
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        # Sent away, and with nothing to do on a new connection.
        await until_not(front.channel, grpc.ChannelConnectivity.READY)
        ended, _ = await asyncio.wait([held], timeout=0.5)
        assert not ended
        front.relay.release_all()
        assert (await held).predictions
        # A connection may grow old in the very moment of a call.
        async with asyncio.timeout(LIMIT_S):
            assert (await front.stub.Predict(IMAGE, wait_for_ready=True)).predictions


@pytest.mark.parametrize(
    "make_stub", [PredictionServiceStub, GRPCInferenceServiceStub], ids=["own", "standard"]
)
async def test_a_stream_that_never_ends_is_cut_with_its_old_connection(make_stub: Any) -> None:
    async with front_end(max_connection_age_s=0.2, max_deadline_s=0.1) as front:
        stub = make_stub(front.channel)
        is_own = make_stub is PredictionServiceStub
        stream = (stub.PredictStream if is_own else stub.ModelStreamInfer)()
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "max connection age" in (caught.value.details() or "")


async def test_a_client_that_pings_too_often_is_sent_away() -> None:
    eager = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
    ]
    async with (
        front_end() as front,
        grpc.aio.insecure_channel(front.address, options=eager) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await PredictionServiceStub(channel).Predict(HELD, timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "ping" in (caught.value.details() or "")


async def test_what_a_vanished_caller_asked_for_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "KEEPALIVE_S", 0.2)
    monkeypatch.setattr(grpc_server, "KEEPALIVE_TIMEOUT_S", 0.2)
    async with (
        front_end() as front,
        wire_to(front.address) as wire,
        grpc.aio.insecure_channel(wire.address) as channel,
    ):
        held: Any = PredictionServiceStub(channel).Predict(HELD)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        wire.is_cut = True
        await front.relay.notice.until(lambda: front.relay.cancelled == [b"hold"])
        held.cancel()


async def test_our_client_notices_that_the_server_has_vanished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # gRPC pings once a second at most, whatever it is told.
    monkeypatch.setattr(client_channel, "KEEPALIVE_INTERVAL_S", 1)
    monkeypatch.setattr(client_channel, "KEEPALIVE_TIMEOUT_S", 0.2)
    async with (
        front_end() as front,
        wire_to(front.address) as wire,
        AsyncClient(wire.address) as client,
    ):
        held = asyncio.create_task(client.predict(HELD.image, timeout_s=LIMIT_S))
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        wire.is_cut = True
        # It comes again, on a connection of its own; nobody hears it there either.
        async with asyncio.timeout(LIMIT_S):
            await wire.arrivals.get()
            await wire.arrivals.get()
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held


async def test_a_message_that_says_it_is_too_large_is_not_waited_for() -> None:
    prefix_only = struct.pack(">BI", 0, 512 * 1024 * 1024)
    async with front_end() as front:
        async with raw_call(front.address, "/prediction.v1.PredictionService/Predict") as call:
            call.send(prefix_only)
            assert b"larger than max" in await call.until(b"grpc-status")
        assert front.relay.submitted == []


async def test_metadata_has_a_limit() -> None:
    async with front_end(max_metadata_bytes=4096) as end:
        await end.stub.Predict(IMAGE, metadata=(("x-note", "x" * 2000),))
        error = await refusal(end.stub.Predict(IMAGE, metadata=(("x-note", "x" * 8000),)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert end.relay.submitted[1:] == []


async def test_an_idle_connection_is_closed_and_opened_again() -> None:
    # A second: a call that meets the close of its connection fails.
    async with front_end(max_connection_idle_s=1) as end:
        await end.stub.Predict(IMAGE)
        await until_not(end.channel, grpc.ChannelConnectivity.READY)
        await end.stub.Predict(IMAGE)


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with front_end(handshake_timeout_s=0.2) as end:
        host, _, port = end.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(LIMIT_S):
            await reader.read()
        writer.close()
