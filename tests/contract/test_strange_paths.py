"""A path that is no text ends nothing but the call that has it."""

import asyncio
import struct

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.front_end import LIMIT_S, front_end
from tests.redis_server import free_port

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, GOAWAY = 1, 4, 7
END_HEADERS = 4

NOT_UTF_8 = b"/\xff"

IMPATIENT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
    return head + payload


def header(name: bytes, value: bytes) -> bytes:
    """Return a header that is neither indexed nor compressed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def call_what_is_no_text(address: str) -> None:
    """Send the headers of a call; return when the server says good-bye."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": NOT_UTF_8,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    block = b"".join(header(name, value) for name, value in headers.items())
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, block))
    async with asyncio.timeout(LIMIT_S):
        kind = None
        while kind != GOAWAY:
            head = await reader.readexactly(9)
            kind = head[3]
            await reader.readexactly(int.from_bytes(head[:3], "big"))
    writer.close()
    await writer.wait_closed()


async def predict(channel: grpc.aio.Channel) -> None:
    response = await PredictionServiceStub(channel).Predict(
        pb.PredictRequest(image=b"x"), timeout=LIMIT_S, wait_for_ready=True
    )
    assert response.worker == "worker-1"


async def test_calls_are_answered_after_it_and_those_in_progress_go_on() -> None:
    async with front_end() as front:
        held = front.stub.Predict(pb.PredictRequest(image=b"hold"), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        for _ in range(2):
            await call_what_is_no_text(front.address)
            async with grpc.aio.insecure_channel(front.address, IMPATIENT) as channel:
                await predict(channel)
        front.relay.release_all()
        assert (await held).worker == "worker-1"


async def test_the_server_still_drains_after_it() -> None:
    async with front_end(drain_s=LIMIT_S) as front:
        await call_what_is_no_text(front.address)
        async with grpc.aio.insecure_channel(front.address, IMPATIENT) as channel:
            await predict(channel)
            held = PredictionServiceStub(channel).Predict(pb.PredictRequest(image=b"hold"))
            await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
            front.relay.release_all()
            assert (await held).worker == "worker-1"


async def test_the_port_of_health_checks_comes_back_as_well() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with front_end(health_address=address):
        await call_what_is_no_text(address)
        async with grpc.aio.insecure_channel(address, IMPATIENT) as channel:
            answer = await HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=LIMIT_S, wait_for_ready=True
            )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
