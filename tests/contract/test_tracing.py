"""Ids of calls and traces, as callers get them back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from dispatch import errors
from prediction.v1 import prediction_pb2 as pb
from tests.credentials import Keys
from tests.front_end import LIMIT_S, FrontEnd, front_end

TRACEPARENT = f"00-{'4b' * 16}-{'7a' * 8}-01"
IDS = (("traceparent", TRACEPARENT), ("x-request-id", "mine"))
IMAGE = pb.PredictRequest(image=b"photo")


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


async def echoed(call: Any) -> dict[str, str]:
    """Return the ids in the trailers of a call, whatever became of it."""
    trailers = {key: str(value) for key, value in await call.trailing_metadata()}
    return {key: value for key, value in trailers.items() if key in dict(IDS)}


async def drained(call: Any) -> None:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError:
        pass


def item(request: pb.PredictRequest) -> pb.PredictStreamRequest:
    return pb.PredictStreamRequest(request=request)


async def test_calls_of_every_kind_echo_their_ids(front: FrontEnd) -> None:
    batch = pb.PredictBatchRequest(images=[pb.BatchImage(image=b"photo")])
    upload = [
        pb.PredictUploadRequest(options=pb.UploadOptions()),
        pb.PredictUploadRequest(chunk=b"x"),
    ]
    calls: list[Any] = [
        front.stub.Predict(IMAGE, metadata=IDS, timeout=LIMIT_S),
        front.stub.PredictBatch(batch, metadata=IDS, timeout=LIMIT_S),
        front.stub.PredictUpload(iter(upload), metadata=IDS, timeout=LIMIT_S),
        front.stub.PredictStream(iter([item(IMAGE)]), metadata=IDS, timeout=LIMIT_S),
    ]
    for call in calls:
        if hasattr(call, "__aiter__"):
            await drained(call)
        assert await echoed(call) == dict(IDS)
        assert await call.code() is grpc.StatusCode.OK


async def test_refused_calls_echo_their_ids(front: FrontEnd) -> None:
    front.relay.failures[b"nobody"] = errors.NoWorker("none")
    method: Any = front.channel.unary_unary("/prediction.v1.PredictionService/Predict")
    unknown = health_pb2.HealthCheckRequest(service="nobody")
    calls: list[Any] = [
        front.stub.Predict(pb.PredictRequest(), metadata=IDS, timeout=LIMIT_S),
        front.stub.Predict(pb.PredictRequest(image=b"nobody"), metadata=IDS, timeout=LIMIT_S),
        method(b"\xff not a message", metadata=IDS, timeout=LIMIT_S),
        HealthStub(front.channel).Check(unknown, metadata=IDS, timeout=LIMIT_S),
        front.stub.PredictBatch(pb.PredictBatchRequest(), metadata=IDS, timeout=LIMIT_S),
    ]
    for call in calls:
        if hasattr(call, "__aiter__"):
            await drained(call)
        assert await call.code() is not grpc.StatusCode.OK
        assert await echoed(call) == dict(IDS)


async def test_a_flood_echoes_the_ids_of_those_it_refuses(front: FrontEnd) -> None:
    front.relay.flooded = errors.QueueFull("model:m/jobs", "full", retry_after_s=0.25)
    call: Any = front.stub.Predict(IMAGE, metadata=IDS, timeout=LIMIT_S)
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await echoed(call) == dict(IDS)


async def test_a_caller_without_a_key_gets_its_ids_back(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.toml")
    keys.add("camera-1", "predict")
    async with front_end(api_keys_file=str(keys.path)) as front:
        stream: Any = front.stub.PredictStream(metadata=IDS, timeout=LIMIT_S)
        for call in (front.stub.Predict(IMAGE, metadata=IDS, timeout=LIMIT_S), stream):
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await echoed(call) == dict(IDS)


@pytest.mark.parametrize(
    "traceparent",
    [
        "nonsense",
        TRACEPARENT.upper(),
        f"ff{TRACEPARENT[2:]}",
        f"00-{'0' * 32}-{'7a' * 8}-01",
        f"00-{'4b' * 16}-{'0' * 16}-01",
        f"{TRACEPARENT}-more",
    ],
)
async def test_what_is_no_trace_is_neither_echoed_nor_passed_on(
    front: FrontEnd, traceparent: str
) -> None:
    call: Any = front.stub.Predict(IMAGE, metadata=(("traceparent", traceparent),))
    assert (await echoed(call)).keys() == {"x-request-id"}
    assert front.relay.submitted[0].job.traceparent == ""


async def test_no_trace_is_made_up(front: FrontEnd) -> None:
    call: Any = front.stub.Predict(IMAGE)
    assert (await echoed(call)).keys() == {"x-request-id"}
