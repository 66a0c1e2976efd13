"""One trace from the caller to the model, through real processes, to a real collector."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

from client import AsyncClient
from prediction.v1 import prediction_pb2 as pb
from tests.redis_server import RedisServer
from tests.stack import image_of, request_for
from tests.trace_collector import Seen, collecting
from tests.traced_system import (
    CALL,
    IMAGE,
    LIMIT_S,
    MILLISECOND_NS,
    STREAM,
    SUBMIT,
    WORK,
    System,
    by_name,
    line_with,
    new_trace,
    trace_to,
)
from tests.worker_process import MODEL, RAISE


@pytest.fixture(scope="module")
def system(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One for all tests that end nothing in it."""
    with shared_redis.client() as client:
        client.flushall()
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        trace_to(patch, collector.url)
        system = System(shared_redis, tmp_path_factory.mktemp("traces"), collector)
        try:
            yield system
        finally:
            for process in (system.server, system.worker):
                process.clean_up()


async def test_one_trace_leads_from_the_caller_to_the_model(system: System) -> None:
    await system.until_ready()
    tracer = TracerProvider().get_tracer("the caller's code")
    with tracer.start_as_current_span("caller") as caller:
        async with AsyncClient(system.address) as client:
            result = await client.predict(image_of((10, 20, 30)), timeout_s=LIMIT_S)
    trace_id = f"{caller.get_span_context().trace_id:032x}"
    spans = system.collector.wait_for(trace_id, CALL, IMAGE, *WORK)
    named = by_name(spans)
    call, image = named[CALL], named[IMAGE]

    assert call.parent_id == f"{caller.get_span_context().span_id:016x}"
    assert image.parent_id == call.span_id
    assert {named[name].parent_id for name in WORK} == {image.span_id}
    assert (call.service, image.service) == ("despacho-server", "despacho-server")
    assert {named[name].service for name in WORK} == {"despacho-worker"}
    assert {named[name].instance for name in WORK} == {result.worker}
    kinds = ("server", "producer", "consumer", "internal", "internal")
    assert tuple(named[name].kind for name in (CALL, IMAGE, *WORK)) == kinds
    assert not any(span.is_error for span in spans)

    assert all(span.began_ns <= span.ended_ns for span in spans)
    assert call.began_ns <= image.began_ns <= image.ended_ns <= call.ended_ns
    # Redis, whose clock says when the wait began, tells milliseconds.
    began = [named[name].began_ns for name in WORK]
    ended = [named[name].ended_ns for name in WORK]
    assert image.began_ns - 2 * MILLISECOND_NS <= began[0]
    assert ended[0] <= ended[1] <= ended[2] <= image.ended_ns
    assert began[0] <= began[1] <= began[2]

    assert call.attributes["rpc.system"] == "grpc"
    assert call.attributes["rpc.service"] == "prediction.v1.PredictionService"
    assert call.attributes["rpc.method"] == "Predict"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["client.address"] == "127.0.0.1"
    job_ids = {named[name].attributes["messaging.message.id"] for name in (IMAGE, "queue wait")}
    assert len(job_ids) == 1
    assert image.attributes["despacho.worker"] == result.worker
    assert named["inference"].attributes["despacho.batch_size"] == 1
    assert {named[name].attributes["despacho.attempt"] for name in WORK} == {1}


async def test_the_lines_of_both_logs_have_the_same_ids(system: System) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    request = request_for((1, 2, 3), request_id="log-1")
    response = await system.stub().Predict(request, metadata=metadata, timeout=LIMIT_S)
    call = line_with(system.server, "call", "log-1")
    job = line_with(system.worker, "job", "log-1")
    assert call["trace_id"] == job["trace_id"] == trace_id
    assert call["worker"] == job["worker"] == response.worker
    assert call["model"] == job["model"] == MODEL
    assert (job["level"], job["outcome"], job["reason"]) == ("debug", "completed", "")
    for field in ("queue_ms", "decode_ms", "inference_ms", "batch_size", "attempt"):
        assert call[field] == job[field]
    assert call["inference_ms"] == response.timing.inference.ToMicroseconds() / 1000

    bad = pb.PredictRequest(image=b"no image", request_id="log-2")
    with pytest.raises(grpc.aio.AioRpcError):
        await system.stub().Predict(bad, metadata=metadata, timeout=LIMIT_S)
    call = line_with(system.server, "call", "log-2")
    job = line_with(system.worker, "job", "log-2")
    assert call["worker"] == response.worker
    assert call["reason"] == job["reason"] == "IMAGE_FORMAT_UNSUPPORTED"
    assert job["outcome"] == "failed"


async def test_each_image_of_a_stream_has_a_span_and_a_bad_one_fails_alone(
    system: System,
) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    bad = pb.PredictRequest(image=b"no image", request_id="bad")
    raising = request_for(RAISE, request_id="raising")
    items = [
        pb.PredictStreamRequest(request=request)
        for request in (request_for((5, 5, 5), request_id="good"), bad, raising)
    ]
    stream: Any = system.stub().PredictStream(iter(items), metadata=metadata, timeout=LIMIT_S)
    assert len([response async for response in stream]) == 3

    def is_complete(spans: list[Seen]) -> bool:
        # What was inferred together is inferred again, one by one, when one of them raises.
        return STREAM in {span.name for span in spans} and len(images_of(spans)) == 3

    def images_of(spans: list[Seen]) -> dict[str, Seen]:
        images = [span for span in spans if span.name == IMAGE]
        return {span.attributes["despacho.request_id"]: span for span in images}

    spans = system.collector.wait(trace_id, is_complete)
    [call] = [span for span in spans if span.name == STREAM]
    images = images_of(spans)
    assert not call.is_error
    assert (call.attributes["despacho.images"], call.attributes["despacho.failed_images"]) == (1, 2)
    assert {span.parent_id for span in images.values()} == {call.span_id}
    reasons = {name: span.attributes.get("error.type") for name, span in images.items()}
    assert reasons == {
        "good": None,
        "bad": "IMAGE_FORMAT_UNSUPPORTED",
        "raising": "INFERENCE_FAILED",
    }

    def work_of(name: str, parent: str) -> list[Seen]:
        parent_id = images[parent].span_id
        spans = system.collector.of(trace_id)
        return [span for span in spans if span.parent_id == parent_id and span.name == name]

    system.collector.wait(trace_id, lambda _: bool(work_of("inference", "raising")))
    system.collector.wait(trace_id, lambda _: bool(work_of("decode", "bad")))
    assert work_of("decode", "bad")[0].is_error
    assert not work_of("inference", "bad")
    assert work_of("inference", "raising")[-1].attributes["error.type"] == "INFERENCE_FAILED"
    system.worker.wait_for_line(rf'"request_ids": \["raising"\], "trace_ids": \["{trace_id}"\]')


async def test_an_operation_is_one_trace_though_nobody_waits(system: System) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    request = pb.SubmitPredictionRequest(image=image_of((9, 9, 9)))
    await system.stub().SubmitPrediction(request, metadata=metadata, timeout=LIMIT_S)
    spans = system.collector.wait_for(trace_id, SUBMIT, f"submit {MODEL}", *WORK)
    named = by_name(spans)
    submission = named[f"submit {MODEL}"]
    assert submission.parent_id == named[SUBMIT].span_id
    assert {named[name].parent_id for name in WORK} == {submission.span_id}
    assert named["queue wait"].attributes["messaging.destination.name"].endswith(":operation")


async def test_a_caller_without_a_trace_is_told_that_of_its_call(system: System) -> None:
    await system.until_ready()
    call: Any = system.stub().Predict(request_for((7, 7, 7)), timeout=LIMIT_S)
    await call
    told = dict(await call.trailing_metadata())["traceparent"]
    _, trace_id, span_id, _ = told.split("-")
    root = by_name(system.collector.wait_for(trace_id, CALL, IMAGE, *WORK))[CALL]
    assert (root.span_id, root.parent_id) == (span_id, "")


async def test_refusals_and_methods_that_do_not_exist_are_errors(system: System) -> None:
    await system.until_ready()
    trace_id, metadata = new_trace()
    unknown: Any = system.channel().unary_unary("/made.up/Method")
    with pytest.raises(grpc.aio.AioRpcError):
        await unknown(b"", metadata=metadata, timeout=LIMIT_S)
    [span] = system.collector.wait_for(trace_id, "_OTHER")
    assert span.is_error
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.UNIMPLEMENTED.value[0]

    trace_id, metadata = new_trace()
    with pytest.raises(grpc.aio.AioRpcError):
        await system.stub().Predict(pb.PredictRequest(), metadata=metadata, timeout=LIMIT_S)
    [span] = system.collector.wait_for(trace_id, CALL)
    # The caller's fault is none of the server.
    assert not span.is_error
    assert span.attributes["error.type"] == "IMAGE_EMPTY"
