"""What operators may rely on: one line per call."""

from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from dispatch import errors
from prediction.v1 import prediction_pb2 as pb
from server import access_log
from server.call_record import CallRecord
from telemetry import tracing
from tests.front_end import LIMIT_S, MODEL, front_end
from tests.stack import details_of

if TYPE_CHECKING:
    from telemetry import tracing_sdk

PREDICT = "/prediction.v1.PredictionService/Predict"


async def test_each_call_leaves_one_line_that_says_how_it_ended() -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            await front.stub.Predict(
                pb.PredictRequest(image=b"x", request_id="good"),
                metadata=(("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01"),),
            )
            front.relay.failures[b"bad"] = errors.NoWorker("none")
            with pytest.raises(grpc.aio.AioRpcError):
                await front.stub.Predict(pb.PredictRequest(image=b"bad", request_id="bad"))
            held = front.stub.Predict(pb.PredictRequest(image=b"hold", request_id="left"))
            await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
            held.cancel()
            await front.relay.notice.until(lambda: len(front.relay.cancelled) == 1)
    good, bad, left = (line for line in lines if line["event"] == "call")
    assert good["method"] == PREDICT
    assert (good["request_id"], good["status"], good["reason"]) == ("good", "OK", "")
    assert (good["model"], good["images"], good["trace_id"]) == (MODEL, 1, "ab" * 16)
    assert good["log_level"] == "info"
    assert good["duration_ms"] > 0
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert (bad["request_id"], bad["status"], bad["reason"]) == ("bad", "UNAVAILABLE", "NO_WORKER")
    assert (left["request_id"], left["status"]) == ("left", "CANCELLED")


@pytest.mark.parametrize(
    ("peer", "written", "address"),
    [
        ("ipv4:127.0.0.1:5740", "ipv4:127.0.0.1:5740", "127.0.0.1"),
        ("ipv6:%5B::1%5D:5740", "ipv6:[::1]:5740", "::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5740", "ipv6:[fe80::1%eth0]:5740", "fe80::1%eth0"),
        ("unix:", "unix:", None),
    ],
)
def test_the_address_of_a_caller_is_written_as_a_person_would(
    peer: str, written: str, address: str | None
) -> None:
    span = Span()
    record = CallRecord(PREDICT, "mine", span=cast("tracing_sdk.Span", span))
    context = cast("grpc.aio.ServicerContext[Any, Any]", Peer(peer))
    with structlog.testing.capture_logs() as lines, access_log.Logged(record, context):
        pass
    assert lines[0]["peer"] == written
    assert span.attributes.get("client.address") == address
    assert span.attributes.get("client.port") == (5740 if address else None)


class Peer:
    """The context of a call from some address."""

    def __init__(self, peer: str) -> None:
        self.peer = lambda: peer


class Span:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.attributes: dict[str, object] = {}
        self.add = self.attributes.update

    def end(self) -> None:
        pass


@pytest.mark.parametrize("own", ["", "0b7f9be2-5c5e-4a3d-9f58-8a2c5cf0a7d1"])
async def test_a_submission_keeps_the_id_of_its_caller_and_names_its_operation(own: str) -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            call = front.stub.SubmitPrediction(
                pb.SubmitPredictionRequest(image=b"x", request_id=own),
                metadata=(("x-request-id", "mine-1"),),
            )
            operation = await call
            trailers = dict(await call.trailing_metadata())
    metadata = pb.PredictionMetadata()
    assert operation.metadata.Unpack(metadata)
    [line] = lines
    assert trailers["x-request-id"] == line["request_id"] == (own or "mine-1")
    assert line["operation"] == operation.name.rpartition("/")[2]
    assert line["operation_request_id"] == metadata.request_id


async def test_the_line_of_a_stream_counts_its_images() -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            images = [pb.PredictRequest(image=image) for image in (b"a", b"b", b"")]
            items = iter([pb.PredictStreamRequest(request=image) for image in images])
            assert len([each async for each in front.stub.PredictStream(items)]) == 3
    [line] = lines
    assert (line["images"], line["failed_images"], line["status"]) == (2, 1, "OK")


@pytest.mark.parametrize(("after_s", "level"), [(0, "info"), (3600, "info"), (1e-9, "warning")])
async def test_a_call_that_takes_long_is_a_warning_where_that_is_wanted(
    after_s: float, level: str
) -> None:
    access_log.warn_of_slow(after_s)
    try:
        with structlog.testing.capture_logs() as lines:
            async with front_end() as front:
                await front.stub.Predict(pb.PredictRequest(image=b"x"))
                with pytest.raises(grpc.aio.AioRpcError):
                    await front.stub.Predict(pb.PredictRequest(image=b""))
                # As long as its caller likes.
                items = iter([pb.PredictStreamRequest(request=pb.PredictRequest(image=b"x"))])
                assert len([each async for each in front.stub.PredictStream(items)]) == 1
    finally:
        access_log.warn_of_slow(0)
    assert [(line["event"], line["status"], line["log_level"]) for line in lines] == [
        ("call", "OK", level),
        ("call", "INVALID_ARGUMENT", level),
        ("call", "OK", "info"),
    ]


async def test_probes_are_hardly_logged() -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            await HealthStub(front.channel).Check(health_pb2.HealthCheckRequest())
    assert [line["log_level"] for line in lines] == ["debug"]


async def test_a_method_that_does_not_exist_leaves_a_line() -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary("/a/b")
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"", timeout=LIMIT_S)
    assert [(line["method"], line["status"]) for line in lines] == [("unknown", "UNIMPLEMENTED")]


async def test_a_message_that_does_not_arrive_leaves_no_line() -> None:
    # The caller is told by gRPC that it is too large; its fault is not another one.
    with structlog.testing.capture_logs() as lines:
        async with front_end(max_image_bytes=1) as front:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await front.stub.Predict(pb.PredictRequest(image=bytes(2 * 1024 * 1024)))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await front.stub.Predict(pb.PredictRequest(image=b"x"))
    assert [line["status"] for line in lines] == ["OK"]


async def test_a_bad_header_is_replaced_and_not_passed_on() -> None:
    async with front_end() as front:
        metadata = (("x-request-id", "x" * 129), ("traceparent", "nonsense"))
        response = await front.stub.Predict(pb.PredictRequest(image=b"x"), metadata=metadata)
        assert len(response.request_id) == 32
        assert front.relay.submitted[0].job.traceparent == ""


async def test_a_fault_before_the_handler_is_ours_and_its_text_stays_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            with monkeypatch.context() as broken:
                # Whatever it is asked, it raises.
                broken.setattr(tracing, "tracer", object())
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await front.stub.Predict(pb.PredictRequest(image=b"x"), timeout=LIMIT_S)
            await front.stub.Predict(pb.PredictRequest(image=b"x"), timeout=LIMIT_S)
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert details_of(failed.value)["ErrorInfo"].reason == "INTERNAL"
    assert "object" not in (failed.value.details() or "")
    fault, refused, answered = lines
    assert (fault["event"], fault["method"]) == ("unexpected error", PREDICT)
    assert isinstance(fault["exc_info"], AttributeError)
    assert (refused["method"], refused["status"]) == (PREDICT, "INTERNAL")
    assert answered["status"] == "OK"
