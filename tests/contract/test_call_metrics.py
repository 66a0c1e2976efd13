"""What Prometheus may rely on: each call is counted once, under the status that callers see."""

from collections import Counter

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from dispatch import errors
from prediction.v1 import prediction_pb2 as pb
from telemetry.metrics_catalogue import CALL_SECONDS, CALLS_HANDLED, CALLS_STARTED
from tests.front_end import LIMIT_S, front_end

Calls = Counter[tuple[str, ...]]


def handled() -> Calls:
    """Return how many calls ended, by method and status."""
    return Counter({labels[2:]: int(values[0]) for labels, values in CALLS_HANDLED.read().items()})


def started() -> Calls:
    return Counter({labels[2:]: int(values[0]) for labels, values in CALLS_STARTED.read().items()})


def timed() -> Calls:
    found = CALL_SECONDS.read().items()
    return Counter({labels[2:]: int(sum(values[:-1])) for labels, values in found})


async def test_each_call_is_counted_once_by_method_and_status() -> None:
    before = handled(), started(), timed()
    async with front_end() as front:
        front.relay.failures[b"bad"] = errors.NoWorker("none")
        await front.stub.Predict(pb.PredictRequest(image=b"x"))
        with pytest.raises(grpc.aio.AioRpcError):
            await front.stub.Predict(pb.PredictRequest(image=b"bad"))
        batch = pb.PredictBatchRequest(images=[pb.BatchImage(image=b) for b in (b"x", b"bad")])
        assert len([one async for one in front.stub.PredictBatch(batch)]) == 2
        held = front.stub.Predict(pb.PredictRequest(image=b"hold"))
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 5)
        held.cancel()
        await front.relay.notice.until(lambda: len(front.relay.cancelled) == 1)
        await HealthStub(front.channel).Check(health_pb2.HealthCheckRequest())
    assert handled() - before[0] == {
        ("Predict", "OK"): 1,
        ("Predict", "UNAVAILABLE"): 1,
        ("Predict", "CANCELLED"): 1,
        ("PredictBatch", "OK"): 1,
        ("Check", "OK"): 1,
    }
    calls = {("Predict",): 3, ("PredictBatch",): 1, ("Check",): 1}
    assert started() - before[1] == calls
    assert timed() - before[2] == calls


async def test_methods_that_callers_make_up_are_one_series() -> None:
    before, size = handled(), len(CALLS_STARTED.read())
    async with front_end() as front:
        for number in range(3):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary(
                f"/made.up/{number}"
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"", timeout=LIMIT_S)
    assert handled() - before == {("unknown", "UNIMPLEMENTED"): 3}
    assert len(CALLS_STARTED.read()) == size
