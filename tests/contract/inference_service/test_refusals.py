"""What callers of `ModelInfer` are told when it fails."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2

from dispatch import errors
from inference import grpc_predict_v2_pb2 as pb
from tests.front_end import LIMIT_S, FrontEnd, front_end
from tests.inference_requests import (
    RequestedOutput,
    classified,
    infer,
    raw,
    refusal,
    streamed,
    stub_of,
    typed,
    whole,
)


def violation_of(error: grpc.aio.AioRpcError) -> str:
    """Return the field that a status blames."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in status.details)
    return str(found.field_violations[0].field)


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
