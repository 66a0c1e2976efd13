"""What callers of `PredictionService.PredictUpload` may rely on."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from dispatch import errors
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end
from tests.stoppable import Stoppable

if TYPE_CHECKING:
    Call = grpc.aio.StreamUnaryCall[pb.PredictUploadRequest, pb.PredictUploadResponse]

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MAX_BYTES = 1000


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end(max_image_bytes=MAX_BYTES) as running:
        yield running


def options(**wanted: Any) -> pb.PredictUploadRequest:
    return pb.PredictUploadRequest(options=pb.UploadOptions(**wanted))


def chunk(content: bytes) -> pb.PredictUploadRequest:
    return pb.PredictUploadRequest(chunk=content)


async def begun(front: FrontEnd, *parts: pb.PredictUploadRequest) -> "Call":
    """Send `parts` and do not end the stream."""
    call = front.stub.PredictUpload(timeout=LIMIT_S)
    for part in parts:
        await call.write(part)
    return call


async def uploaded(front: FrontEnd, *parts: pb.PredictUploadRequest) -> pb.PredictUploadResponse:
    return await front.stub.PredictUpload(iter(parts), timeout=LIMIT_S)


async def refusal_of(call: "Call") -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(LIMIT_S):
            await call
    return caught.value


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return status_pb2.Status.FromString(packed)


def reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in status_of(error).details)
    return str(info.reason)


def field(error: grpc.aio.AioRpcError) -> str:
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in status_of(error).details)
    [violation] = found.field_violations
    return str(violation.field)


async def test_the_chunks_together_are_the_image(front: FrontEnd) -> None:
    wanted = options(
        model=MODEL,
        top_k=3,
        request_id="mine",
        priority=pb.PRIORITY_HIGH,
        include_scores=True,
        total_bytes=6,
    )
    parts = (wanted, chunk(b"a"), chunk(b""), chunk(b"bcd"), chunk(b"ef"), chunk(b""))
    call = front.stub.PredictUpload(
        iter(parts), metadata=(("traceparent", TRACEPARENT),), timeout=LIMIT_S
    )
    response = (await call).response
    assert response.request_id == "mine"
    assert response.predictions[0].label == "cat"
    assert len(response.scores) == 2
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
    [seen] = front.relay.submitted
    assert seen.image == b"abcdef"
    assert seen.priority is Priority.HIGH
    assert (seen.job.model, seen.job.top_k, seen.job.request_id) == (MODEL, 3, "mine")
    assert seen.job.traceparent == TRACEPARENT


async def test_what_the_options_leave_out_has_a_default(front: FrontEnd) -> None:
    response = await uploaded(front, options(), chunk(b"x"))
    [seen] = front.relay.submitted
    assert (seen.job.top_k, seen.priority) == (5, Priority.NORMAL)
    assert len(response.response.request_id) == 32


async def test_an_image_may_be_as_large_as_the_limit(front: FrontEnd) -> None:
    half = chunk(b"x" * (MAX_BYTES // 2))
    await uploaded(front, options(total_bytes=MAX_BYTES), half, half)
    assert len(front.relay.submitted[0].image) == MAX_BYTES


async def test_what_the_worker_says_of_an_image_reaches_the_caller(front: FrontEnd) -> None:
    front.relay.failures[b"torn"] = errors.ImageUndecodable("torn")
    error = await refusal_of(await begun_and_ended(front, options(), chunk(b"torn")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(error) == "IMAGE_UNDECODABLE"


async def begun_and_ended(front: FrontEnd, *parts: pb.PredictUploadRequest) -> "Call":
    call = await begun(front, *parts)
    await call.done_writing()
    return call


@pytest.mark.parametrize(
    ("parts", "named", "why"),
    [
        ((), "options", "INVALID_ARGUMENT"),
        ((options(),), "image", "IMAGE_EMPTY"),
        ((options(), chunk(b"")), "image", "IMAGE_EMPTY"),
        ((options(total_bytes=3), chunk(b"ab")), "total_bytes", "INVALID_ARGUMENT"),
        ((options(total_bytes=3),), "total_bytes", "INVALID_ARGUMENT"),
    ],
    ids=["nothing", "no chunk", "an empty chunk", "cut short", "cut short at once"],
)
async def test_an_upload_that_ends_too_early_is_refused(
    front: FrontEnd, parts: tuple[pb.PredictUploadRequest, ...], named: str, why: str
) -> None:
    error = await refusal_of(await begun_and_ended(front, *parts))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (field(error), reason(error)) == (named, why)
    assert front.relay.submitted == []


@pytest.mark.parametrize(
    ("parts", "named", "why"),
    [
        ((chunk(b"x"),), "options", "INVALID_ARGUMENT"),
        ((pb.PredictUploadRequest(),), "options", "INVALID_ARGUMENT"),
        ((options(), options()), "options", "INVALID_ARGUMENT"),
        ((options(), chunk(b"x"), options()), "options", "INVALID_ARGUMENT"),
        ((options(), pb.PredictUploadRequest()), "chunk", "INVALID_ARGUMENT"),
        ((options(top_k=1001),), "top_k", "INVALID_ARGUMENT"),
        ((options(priority=9),), "priority", "INVALID_ARGUMENT"),
        ((options(request_id="x" * 129),), "request_id", "INVALID_ARGUMENT"),
        ((options(total_bytes=-1),), "total_bytes", "INVALID_ARGUMENT"),
        ((options(total_bytes=MAX_BYTES + 1),), "image", "IMAGE_TOO_LARGE"),
        ((options(total_bytes=3), chunk(b"abcd")), "total_bytes", "INVALID_ARGUMENT"),
        ((options(), chunk(b"x" * MAX_BYTES), chunk(b"x")), "image", "IMAGE_TOO_LARGE"),
    ],
    ids=[
        "a chunk before the options",
        "neither options nor chunk",
        "options twice",
        "options among chunks",
        "no chunk",
        "top_k",
        "priority",
        "request_id",
        "a negative size",
        "announced too large",
        "more than announced",
        "too large",
    ],
)
async def test_a_part_that_cannot_be_is_refused_at_once(
    front: FrontEnd, parts: tuple[pb.PredictUploadRequest, ...], named: str, why: str
) -> None:
    # The caller does not end the stream: the server does not wait for more.
    error = await refusal_of(await begun(front, *parts))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (field(error), reason(error)) == (named, why)
    assert front.relay.submitted == []


async def test_an_unknown_model_is_refused_before_the_first_chunk(front: FrontEnd) -> None:
    error = await refusal_of(await begun(front, options(model="nope")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason(error) == "MODEL_NOT_FOUND"


async def test_bytes_that_are_no_message_are_refused(front: FrontEnd) -> None:
    method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = front.channel.stream_unary(
        "/prediction.v1.PredictionService/PredictUpload"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(iter([options().SerializeToString(), b"\xff\xff"]), timeout=LIMIT_S)
    assert (field(caught.value), reason(caught.value)) == ("request", "INVALID_ARGUMENT")


async def test_the_rest_of_a_refused_upload_is_not_read(front: FrontEnd) -> None:
    sent = 0

    async def endless() -> AsyncIterator[pb.PredictUploadRequest]:
        nonlocal sent
        yield options()
        while True:
            sent += 1
            yield chunk(b"x" * 100)

    error = await refusal_of(front.stub.PredictUpload(endless(), timeout=LIMIT_S))
    assert reason(error) == "IMAGE_TOO_LARGE"
    seen = sent
    await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    assert sent <= seen + 1


async def test_the_deadline_counts_from_the_beginning_of_the_upload(front: FrontEnd) -> None:
    for timeout_s in (50.0, 5000.0, None):
        await front.stub.PredictUpload(iter([options(), chunk(b"x")]), timeout=timeout_s)
    given, capped, default = (seen.timeout_s for seen in front.relay.submitted)
    assert 40 < given <= 50
    assert 299 < capped < 300
    assert 29 < default < 30


async def test_an_upload_that_is_too_slow_ends_at_the_deadline() -> None:
    async with front_end(default_deadline_s=0.2) as front:
        call = front.stub.PredictUpload()
        await call.write(options())
        await call.write(chunk(b"x"))
        error = await refusal_of(call)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason(error) == "EXPIRED_IN_QUEUE"
        assert front.relay.submitted == []


async def test_cancelling_an_upload_labels_nothing_and_makes_room() -> None:
    async with front_end(max_receiving_bytes=1000) as front:
        for _ in range(10):
            call = await begun(front, options(total_bytes=901), chunk(b"x" * 900))
            await until_refused(front)
            call.cancel()
            await until_accepted(front)
        assert {seen.image for seen in front.relay.submitted} == {b"y" * 500}


async def until_refused(front: FrontEnd) -> None:
    """Wait until another upload keeps this one out."""
    async with asyncio.timeout(LIMIT_S):
        while not await is_refused(front):
            pass


async def until_accepted(front: FrontEnd) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await is_refused(front):
            pass


async def is_refused(front: FrontEnd) -> bool:
    """Try to upload, and say whether there was no room for it."""
    try:
        await uploaded(front, options(), chunk(b"y" * 500))
    except grpc.aio.AioRpcError as error:
        return reason(error) == "QUEUE_FULL"
    return False


async def test_cancelling_after_the_upload_cancels_the_image(front: FrontEnd) -> None:
    call = await begun_and_ended(front, options(), chunk(b"hold"))
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
    call.cancel()
    await front.relay.notice.until(lambda: front.relay.cancelled == [b"hold"])


@pytest.mark.parametrize(
    "parts",
    [(options(total_bytes=500),), (options(), chunk(b"y" * 400), chunk(b"y" * 100))],
    ids=["announced", "not announced"],
)
async def test_an_upload_that_this_server_has_no_room_for_is_refused(
    parts: tuple[pb.PredictUploadRequest, ...],
) -> None:
    async with front_end(max_receiving_bytes=1000) as front:
        first = await begun(front, options(), chunk(b"hold" + b"x" * 596))
        await until_refused(front)
        error = await refusal_of(await begun(front, *parts))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(error) == "QUEUE_FULL"
        quota = error_details_pb2.QuotaFailure()
        assert any(packed.Unpack(quota) for packed in status_of(error).details)
        assert quota.violations[0].subject == "server/receiving"
        # One that is there may go on, and when it waits it is counted elsewhere.
        await first.write(chunk(b"x" * 900))
        await first.done_writing()
        await until_accepted(front)
        front.relay.release_all()
        assert (await first).response.worker == "worker-1"


async def test_a_draining_server_answers_complete_uploads_and_refuses_others() -> None:
    context = front_end(drain_notice_s=LIMIT_S / 2, drain_s=LIMIT_S, max_receiving_bytes=10)
    async with (
        Stoppable(context) as running,
        grpc.aio.insecure_channel(running.front.address) as channel,
    ):
        front = running.front
        stub: Any = PredictionServiceStub(channel)
        complete = stub.PredictUpload(iter([options(), chunk(b"hold")]), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        partial = stub.PredictUpload(timeout=LIMIT_S)
        await partial.write(options())
        await partial.write(chunk(b"x" * 10))
        await until_refused(front)
        end = running.stop()
        error = await refusal_of(partial)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(error) == "DRAINING"
        front.relay.release_all()
        assert (await complete).response.worker == "worker-1"
        async with asyncio.timeout(LIMIT_S):
            await end
