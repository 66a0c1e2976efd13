"""What callers of the Open Inference Protocol may rely on."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2

import client
from despacho.job.v1 import job_pb2
from dispatch import errors
from dispatch.jobs import Priority
from inference import grpc_predict_v2_pb2 as pb
from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end

if TYPE_CHECKING:
    from inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceAsyncStub

InputTensor = pb.ModelInferRequest.InferInputTensor
RequestedOutput = pb.ModelInferRequest.InferRequestedOutputTensor


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end(max_image_bytes=2000) as running:
        yield running


def stub_of(front: FrontEnd) -> "GRPCInferenceServiceAsyncStub":
    return GRPCInferenceServiceStub(front.channel)


def typed(*images: bytes, **fields: Any) -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(bytes_contents=images)
    tensor = InputTensor(name="image", datatype="BYTES", shape=[len(images)], contents=contents)
    return pb.ModelInferRequest(model_name=MODEL, inputs=[tensor], **fields)


def raw(*images: bytes, **fields: Any) -> pb.ModelInferRequest:
    content = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = InputTensor(name="image", datatype="BYTES", shape=[len(images)])
    return pb.ModelInferRequest(
        model_name=MODEL, inputs=[tensor], raw_input_contents=[content], **fields
    )


def whole(number: int) -> pb.InferParameter:
    return pb.InferParameter(int64_param=number)


def classified(count: int, name: str = "scores") -> RequestedOutput:
    return RequestedOutput(name=name, parameters={"classification": whole(count)})


async def infer(front: FrontEnd, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return await stub_of(front).ModelInfer(request, timeout=LIMIT_S)


async def refusal(front: FrontEnd, request: pb.ModelInferRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(front, request)
    return caught.value


def violation_of(error: grpc.aio.AioRpcError) -> str:
    """Return the field that a status blames."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in status.details)
    return str(found.field_violations[0].field)


# --- The server and its models ----------------------------------------------


async def test_a_process_that_answers_is_live(front: FrontEnd) -> None:
    front.fleet.connect(is_connected=False)
    assert (await stub_of(front).ServerLive(pb.ServerLiveRequest())).live


async def test_ready_is_who_has_a_broker(front: FrontEnd) -> None:
    assert (await stub_of(front).ServerReady(pb.ServerReadyRequest())).ready
    front.fleet.connect(is_connected=False)
    assert not (await stub_of(front).ServerReady(pb.ServerReadyRequest())).ready


async def test_the_server_says_what_it_is(front: FrontEnd) -> None:
    metadata = await stub_of(front).ServerMetadata(pb.ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("despacho", client.__version__)
    assert list(metadata.extensions) == [
        "classification",
        "model_configuration",
        "schedule_policy",
        "statistics",
    ]


@pytest.mark.parametrize(
    ("name", "version", "is_ready"),
    [
        (MODEL, "", True),
        (MODEL, "1.0", True),
        ("", "", True),
        (MODEL, "2.0", False),
        ("nobody", "", False),
    ],
)
async def test_a_model_is_ready_or_not_and_that_is_no_error(
    front: FrontEnd, name: str, version: str, *, is_ready: bool
) -> None:
    request = pb.ModelReadyRequest(name=name, version=version)
    assert (await stub_of(front).ModelReady(request)).ready == is_ready


async def test_a_model_without_a_worker_or_a_broker_is_not_ready(front: FrontEnd) -> None:
    request = pb.ModelReadyRequest(name=MODEL)
    front.fleet.connect(is_connected=False)
    assert not (await stub_of(front).ModelReady(request)).ready
    front.fleet.connect(is_connected=True)
    front.fleet.set_workers(ready=0, loading=1)
    assert not (await stub_of(front).ModelReady(request)).ready


async def test_a_model_tells_its_tensors(front: FrontEnd) -> None:
    metadata = await stub_of(front).ModelMetadata(pb.ModelMetadataRequest(name=MODEL))
    tensor = pb.ModelMetadataResponse.TensorMetadata
    assert metadata == pb.ModelMetadataResponse(
        name=MODEL,
        versions=["1.0"],
        platform="tensorflow",
        inputs=[tensor(name="image", datatype="BYTES", shape=[-1])],
        outputs=[
            tensor(name="scores", datatype="FP32", shape=[-1, 2]),
            tensor(name="labels", datatype="BYTES", shape=[-1]),
        ],
    )


async def test_a_model_tells_its_configuration(front: FrontEnd) -> None:
    config = (await stub_of(front).ModelConfig(pb.ModelConfigRequest(name=MODEL))).config
    assert (config.name, config.platform, config.max_batch_size) == (MODEL, "tensorflow", 64)
    assert list(config.output[0].dims) == [2]
    assert config.instance_group[0].count == 1
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert config.HasField("model_transaction_policy")


async def test_an_unknown_model_or_version_is_not_found(front: FrontEnd) -> None:
    stub = stub_of(front)
    for name, version in (("nobody", ""), (MODEL, "2.0")):
        for call in (
            stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)),
            stub.ModelConfig(pb.ModelConfigRequest(name=name, version=version)),
            stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_index_tells_states(front: FrontEnd) -> None:
    entry = pb.RepositoryIndexResponse.ModelIndex
    one = front.fleet.views[MODEL]
    front.fleet.views = {
        "gone": replace(one, ready_workers=0, live_versions=()),
        "soon": replace(one, ready_workers=0, loading_workers=1, live_versions=()),
        MODEL: replace(one, live_versions=("1.0", "1.1")),
    }
    for view, name in zip(front.fleet.models(), sorted(front.fleet.views), strict=True):
        card = job_pb2.ModelCard()
        card.CopyFrom(view.card)
        card.name = name
        front.fleet.views[name] = replace(view, card=card)
    index = await stub_of(front).RepositoryIndex(pb.RepositoryIndexRequest())
    assert list(index.models) == [
        entry(name=MODEL, version="1.0", state="READY"),
        entry(name=MODEL, version="1.1", state="READY"),
        entry(name="gone", version="1.0", state="UNAVAILABLE", reason="no worker serves it"),
        entry(name="soon", version="1.0", state="LOADING", reason="workers are loading it"),
    ]
    index = await stub_of(front).RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert {each.name for each in index.models} == {MODEL}
    elsewhere = pb.RepositoryIndexRequest(repository_name="elsewhere")
    assert not (await stub_of(front).RepositoryIndex(elsewhere)).models


async def test_what_is_not_here_is_unimplemented(front: FrontEnd) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary(
        "/inference.GRPCInferenceService/SystemSharedMemoryStatus"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- One request -------------------------------------------------------------


async def test_a_raw_request_gets_a_raw_answer(front: FrontEnd) -> None:
    response = await infer(front, raw(b"a", id="order-7"))
    assert (response.model_name, response.model_version, response.id) == (MODEL, "1.0", "order-7")
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
        ("scores", "FP32", [1, 2]),
        ("labels", "BYTES", [1]),
    ]
    assert not any(each.HasField("contents") for each in response.outputs)
    assert list(response.raw_output_contents) == [
        struct.pack("<2f", 0.1, 0.9),
        b"\x03\0\0\0cat",
    ]


async def test_a_typed_request_gets_a_typed_answer(front: FrontEnd) -> None:
    response = await infer(front, typed(b"a", b"b"))
    assert not response.raw_output_contents
    scores, labels = response.outputs
    assert (list(scores.shape), list(labels.shape)) == ([2, 2], [2])
    assert list(scores.contents.fp32_contents) == pytest.approx([0.1, 0.9, 0.1, 0.9])
    assert list(labels.contents.bytes_contents) == [b"cat", b"cat"]


async def test_a_column_of_images_is_as_good_as_a_row(front: FrontEnd) -> None:
    request = raw(b"a", b"b")
    request.inputs[0].shape.append(1)
    await infer(front, request)
    assert sorted(each.image for each in front.relay.submitted) == [b"a", b"b"]


async def test_each_image_is_a_job_of_its_own(front: FrontEnd) -> None:
    await infer(front, raw(b"a", b"b", id="order-7", parameters={"priority": whole(1)}))
    jobs = [each.job for each in front.relay.submitted]
    assert jobs[0] is not jobs[1]
    assert {(each.request_id, each.model) for each in jobs} == {("order-7", MODEL)}
    assert {each.priority for each in front.relay.submitted} == {Priority.HIGH}


async def test_only_what_is_asked_for_is_computed_and_sent(front: FrontEnd) -> None:
    response = await infer(front, raw(b"a", outputs=[RequestedOutput(name="labels")]))
    assert [each.name for each in response.outputs] == ["labels"]
    [submitted] = front.relay.submitted
    assert (submitted.job.top_k, submitted.job.include_scores) == (1, False)


async def test_a_classification_stands_in_the_place_of_the_scores(front: FrontEnd) -> None:
    response = await infer(front, typed(b"a", b"b", outputs=[classified(3)]))
    [output] = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("scores", "BYTES", [2, 1])
    assert list(output.contents.bytes_contents) == [b"0.900000:281:cat"] * 2
    assert {each.job.top_k for each in front.relay.submitted} == {3}
    assert not any(each.job.include_scores for each in front.relay.submitted)


async def test_the_empty_name_means_the_only_model(front: FrontEnd) -> None:
    request = raw(b"a")
    request.model_name = ""
    assert (await infer(front, request)).model_name == MODEL


@pytest.mark.parametrize(
    ("number", "meant"),
    [(0, Priority.NORMAL), (1, Priority.HIGH), (2, Priority.NORMAL), (3, Priority.LOW)],
)
async def test_priorities_count_from_one(front: FrontEnd, number: int, meant: Priority) -> None:
    parameter = pb.InferParameter(uint64_param=number)
    await infer(front, raw(b"a", parameters={"priority": parameter}))
    assert front.relay.submitted[0].priority is meant


async def test_the_shorter_of_timeout_and_deadline_counts(front: FrontEnd) -> None:
    for timeout_us in (2_000_000, 60_000_000, 0):
        await infer(front, raw(b"a", parameters={"timeout": whole(timeout_us)}))
    short, long, none = (each.timeout_s for each in front.relay.submitted)
    assert short == 2
    assert 8 < long <= LIMIT_S
    assert 8 < none <= LIMIT_S


def changed(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    request = raw(b"a")
    change(request)
    return request


def reshaped(*shape: int) -> pb.ModelInferRequest:
    request = raw(b"a")
    request.inputs[0].shape[:] = shape
    return request


BROKEN = [
    (raw(*[b"a"] * 65), "inputs[0].shape", "has 65 images; it must have 1 to 64"),
    (raw(), "inputs[0].shape", "has 0 images"),
    (reshaped(-1), "inputs[0].shape", r"has shape \[-1\]"),
    (reshaped(), "inputs[0].shape", "has shape"),
    (reshaped(1, 2), "inputs[0].shape", r"has shape \[1, 2\]; it must be \[N\]"),
    (reshaped(*[2**62] * 1000), "inputs[0].shape", "has shape"),
    (reshaped(2), "raw_input_contents[0]", "has 1 elements; the shape says 2"),
    (typed(b""), "image", "no image"),
    (typed(b"a", b"x" * 2001), "image[1]", "image 2 of 2: the image has 2001 bytes"),
    (changed(lambda r: r.inputs.pop()), "inputs", "has 0 inputs"),
    (changed(lambda r: r.inputs.append(r.inputs[0])), "inputs", "has 2 inputs"),
    (
        changed(lambda r: setattr(r.inputs[0], "name", "pixels")),
        "inputs[0].name",
        "no input named 'pixels'; the only one is 'image'",
    ),
    (
        changed(lambda r: setattr(r.inputs[0], "datatype", "UINT8")),
        "inputs[0].datatype",
        "has datatype 'UINT8'; it must be BYTES",
    ),
    (
        changed(lambda r: r.raw_input_contents.append(b"")),
        "raw_input_contents",
        "has 2 entries for 1 inputs",
    ),
    (
        changed(lambda r: r.inputs[0].contents.bytes_contents.append(b"a")),
        "inputs[0].contents",
        "send one of them",
    ),
    (
        changed(lambda r: r.ClearField("raw_input_contents")),
        "inputs[0].contents",
        "has 0 elements",
    ),
    (
        changed(lambda r: r.inputs[0].parameters["shared_memory_region"].SetInParent()),
        "inputs[0].parameters",
        "no shared memory",
    ),
    (raw(b"a", outputs=[RequestedOutput(name="top")]), "outputs[0].name", "named 'top'"),
    (
        raw(b"a", outputs=[RequestedOutput(name="labels"), RequestedOutput(name="labels")]),
        "outputs[1].name",
        "requested twice",
    ),
    (
        raw(b"a", outputs=[classified(1001)]),
        "outputs[0].parameters.classification",
        "must be from 1 to 1000",
    ),
    (
        raw(b"a", outputs=[classified(1, "labels")]),
        "outputs[0].parameters.classification",
        "only output 'scores'",
    ),
    (raw(b"a", parameters={"priority": whole(4)}), "parameters.priority", "priority is 4"),
    (
        raw(b"a", parameters={"priority": pb.InferParameter(string_param="high")}),
        "parameters.priority",
        "whole number",
    ),
    (raw(b"a", parameters={"timeout": whole(-1)}), "parameters.timeout", "negative"),
    (raw(b"a", id="\n"), "id", "printable ASCII"),
]


@pytest.mark.parametrize(("request_", "field", "message"), BROKEN, ids=[each[2] for each in BROKEN])
async def test_a_request_that_breaks_a_rule_is_told_which(
    front: FrontEnd, request_: pb.ModelInferRequest, field: str, message: str
) -> None:
    error = await refusal(front, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violation_of(error) == field
    with pytest.raises(ValueError, match=message):
        raise ValueError(error.details())
    assert not front.relay.submitted


async def test_unknown_models_and_versions_get_nothing(front: FrontEnd) -> None:
    request = raw(b"a")
    request.model_name = "nobody"
    assert (await refusal(front, request)).code() is grpc.StatusCode.NOT_FOUND
    error = await refusal(front, raw(b"a", model_version="2.0"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "has no version '2.0' here; served: 1.0" in str(error.details())
    assert not front.relay.submitted


async def test_one_bad_image_fails_the_request_and_cancels_the_rest(front: FrontEnd) -> None:
    front.relay.failures = {b"torn": errors.ImageUndecodable("cut short")}
    error = await refusal(front, raw(b"hold-1", b"torn", b"hold-2"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "image 2 of 3: cut short"
    assert violation_of(error) == "image[1]"
    await front.relay.notice.until(lambda: sorted(front.relay.cancelled) == [b"hold-1", b"hold-2"])


async def test_the_only_image_needs_no_number(front: FrontEnd) -> None:
    front.relay.failures = {b"torn": errors.ImageUndecodable("cut short")}
    assert (await refusal(front, raw(b"torn"))).details() == "cut short"


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.QueueFull("jobs", "full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.NoWorker("none"), grpc.StatusCode.UNAVAILABLE),
        (errors.ExpiredInQueue("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.InferenceFailed("raised"), grpc.StatusCode.INTERNAL),
        (KeyError("secret"), grpc.StatusCode.INTERNAL),
        (asyncio.CancelledError(), grpc.StatusCode.INTERNAL),
    ],
)
async def test_failures_have_the_codes_of_predict(
    front: FrontEnd, failure: BaseException, code: grpc.StatusCode, others: int
) -> None:
    front.relay.failures = {b"bad": failure}
    error = await refusal(front, raw(b"bad", *[b"good"] * others))
    assert error.code() is code
    assert "secret" not in str(error)


async def test_a_caller_who_goes_away_cancels_all_images(front: FrontEnd) -> None:
    call = stub_of(front).ModelInfer(raw(b"hold-1", b"hold-2"), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    call.cancel()
    await front.relay.notice.until(lambda: sorted(front.relay.cancelled) == [b"hold-1", b"hold-2"])


async def test_the_log_counts_images_and_not_requests() -> None:
    with structlog.testing.capture_logs() as lines:
        async with front_end() as front:
            front.relay.failures = {b"torn": errors.ImageUndecodable("cut short")}
            await infer(front, raw(b"a", b"b", id="order-7"))
            await refusal(front, raw(b"a", b"torn", b"c"))
            await streamed(front, raw(b"a", b"b"), raw(), raw(b"torn", b"c"), raw(b"d"))
    assert [(line["images"], line["failed_images"]) for line in lines] == [(2, 0), (0, 3), (3, 3)]
    assert lines[0]["request_id"] == "order-7"
    assert lines[1]["reason"] == "IMAGE_UNDECODABLE"


# --- While a version replaces another ------------------------------------------


def answer_as(front: FrontEnd, versions: dict[bytes, tuple[str, int]]) -> None:
    """Let images be answered by a version with so many classes."""
    predict = front.relay.predict

    async def answered(job: job_pb2.Job, image: bytes, **options: Any) -> job_pb2.Reply:
        reply = await predict(job, image, **options)
        version, classes = versions[image]
        reply.answer.model_version = version
        if job.include_scores:
            reply.answer.scores[:] = [0.5] * classes
        return reply

    front.relay.predict = answered  # type: ignore[method-assign]


async def test_both_versions_may_answer_one_request(front: FrontEnd) -> None:
    answer_as(front, {b"a": ("2", 2), b"b": ("1", 2)})
    assert (await infer(front, raw(b"a", b"b"))).model_version == "1,2"


async def test_a_tensor_cannot_hold_two_numbers_of_classes(front: FrontEnd) -> None:
    answer_as(front, {b"a": ("2", 3), b"b": ("1", 2)})
    error = await refusal(front, raw(b"a", b"b"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "is being replaced; versions that answered: 1, 2" in str(error.details())


async def test_who_names_a_version_gets_no_other(front: FrontEnd) -> None:
    answer_as(front, {b"a": ("2", 2)})
    error = await refusal(front, raw(b"a", model_version="1.0"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


# --- Statistics ---------------------------------------------------------------


async def statistics_of(front: FrontEnd) -> pb.ModelStatistics:
    request = pb.ModelStatisticsRequest(name=MODEL)
    [found] = (await stub_of(front).ModelStatistics(request)).model_stats
    return found


async def test_nothing_was_done_yet(front: FrontEnd) -> None:
    found = await statistics_of(front)
    assert (found.name, found.version) == (MODEL, "1.0")
    assert (found.inference_count, found.execution_count, found.last_inference) == (0, 0, 0)


async def test_requests_and_images_are_counted(front: FrontEnd) -> None:
    await infer(front, raw(*[b"a"] * 8))
    await infer(front, raw(*[b"a"] * 4))
    front.relay.failures = {b"bad": errors.InferenceFailed("raised")}
    await refusal(front, raw(b"bad"))
    await refusal(front, raw())
    found = await statistics_of(front)
    assert found.inference_count == 12
    # The fake worker says that each image was in a batch of 4.
    assert found.execution_count == 3
    assert found.last_inference > 1_700_000_000_000
    stats = found.inference_stats
    assert (stats.success.count, stats.fail.count) == (2, 1)
    assert stats.success.ns > 0
    assert (stats.queue.count, stats.queue.ns) == (12, 12 * 1_500_000)
    assert (stats.compute_input.count, stats.compute_input.ns) == (12, 12 * 2_000_000_000)
    assert (stats.compute_infer.count, stats.compute_infer.ns) == (12, 12 * 30_000)
    [batch] = found.batch_stats
    assert batch.batch_size == 4
    assert (batch.compute_infer.count, batch.compute_infer.ns) == (3, 3 * 30_000)


async def test_all_models_and_versions_are_told_to_who_names_none(front: FrontEnd) -> None:
    await infer(front, raw(b"a"))
    answer_as(front, {b"a": ("2", 2)})
    await infer(front, raw(b"a"))
    found = (await stub_of(front).ModelStatistics(pb.ModelStatisticsRequest())).model_stats
    assert [(each.version, each.inference_count) for each in found] == [("1.0", 1), ("2", 1)]


# --- Streams -------------------------------------------------------------------


async def streamed(
    front: FrontEnd, *requests: pb.ModelInferRequest, strict: str = ""
) -> list[pb.ModelStreamInferResponse]:
    metadata = (("triton_grpc_error", strict),) if strict else ()
    call = stub_of(front).ModelStreamInfer(iter(requests), metadata=metadata, timeout=LIMIT_S)
    return [response async for response in call]


async def test_a_stream_is_answered_in_the_order_of_its_requests(front: FrontEnd) -> None:
    call = stub_of(front).ModelStreamInfer(timeout=LIMIT_S)
    await call.write(raw(b"hold", id="1"))
    await call.write(raw(b"quick", id="2"))
    await call.done_writing()
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    front.relay.release_all()
    responses = [response.infer_response async for response in call]
    assert [response.id for response in responses] == ["1", "2"]
    assert all(each.parameters["triton_final_response"].bool_param for each in responses)


async def test_a_bad_request_in_a_stream_fails_alone(front: FrontEnd) -> None:
    front.relay.failures = {
        b"torn": errors.ImageUndecodable("torn"),
        b"bug": KeyError("secret"),
        b"ours": asyncio.CancelledError(),
    }
    requests = [raw(b"torn", id="1"), raw(b"bug"), raw(b"ours"), raw(), raw(b"good", id="5")]
    *failed, good = await streamed(front, *requests)
    assert [each.error_message.partition(":")[0] for each in failed] == [
        "IMAGE_UNDECODABLE",
        "INTERNAL",
        "INTERNAL",
        "INVALID_ARGUMENT",
    ]
    assert failed[0].infer_response == pb.ModelInferResponse(id="1")
    assert "secret" not in str(failed)
    assert (good.error_message, good.infer_response.id) == ("", "5")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.ImageUndecodable("torn"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.QueueFull("jobs", "full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (asyncio.CancelledError(), grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_strict_stream_ends_with_the_status_of_the_first_failure(
    front: FrontEnd, failure: BaseException, code: grpc.StatusCode
) -> None:
    front.relay.failures = {b"bad": failure}
    call = stub_of(front).ModelStreamInfer(
        iter([raw(b"hold"), raw(b"bad"), raw(b"good")]),
        metadata=(("triton_grpc_error", "True"),),
        timeout=LIMIT_S,
    )
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    front.relay.release_all()
    assert isinstance(await call.read(), pb.ModelStreamInferResponse)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is code


async def test_a_stream_that_does_not_ask_for_it_has_no_status(front: FrontEnd) -> None:
    [response] = await streamed(front, raw(), strict="false")
    assert response.error_message


async def test_a_stream_is_not_read_beyond_its_window() -> None:
    async with front_end(stream_window=3) as front:
        held = [raw(f"hold-{number}".encode()) for number in range(5)]
        call = stub_of(front).ModelStreamInfer(iter(held), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
        # Answered, but behind one that is not.
        front.relay.release(b"hold-1")
        await stub_of(front).ServerLive(pb.ServerLiveRequest(), timeout=LIMIT_S)
        assert len(front.relay.submitted) == 3
        front.relay.release_all()
        assert len([response async for response in call]) == 5


async def test_cancelling_a_stream_cancels_every_image_in_it(front: FrontEnd) -> None:
    call = stub_of(front).ModelStreamInfer(iter([raw(b"hold-1"), raw(b"hold-2")]), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 2)
    call.cancel()
    await front.relay.notice.until(lambda: sorted(front.relay.cancelled) == [b"hold-1", b"hold-2"])


async def test_a_draining_server_ends_a_stream_and_says_why() -> None:
    running = AsyncExitStack()
    # The notice never runs out by itself here: only the last call ends it.
    context = front_end(drain_notice_s=LIMIT_S, drain_s=LIMIT_S)
    front = await running.enter_async_context(context)
    async with grpc.aio.insecure_channel(front.address) as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(timeout=LIMIT_S)
        await call.write(raw(b"a", id="1"))
        response = await call.read()
        end = asyncio.create_task(running.aclose())
        assert isinstance(response, pb.ModelStreamInferResponse)
        assert response.infer_response.id == "1"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in str(caught.value.details())
        async with asyncio.timeout(LIMIT_S):
            await end
