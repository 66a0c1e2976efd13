"""What callers of `PredictionService.PredictBatch` may rely on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from dispatch import errors
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import PredictionServiceStub
from server.validation import MAX_BATCH_IMAGES
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end
from tests.stoppable import Stoppable

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end(stream_window=3, max_image_bytes=1000) as running:
        yield running


def batch(*images: bytes, **options: Any) -> pb.PredictBatchRequest:
    return pb.PredictBatchRequest(images=[pb.BatchImage(image=each) for each in images], **options)


async def all_of(
    front: FrontEnd, request: pb.PredictBatchRequest, timeout_s: float | None = LIMIT_S
) -> list[pb.PredictBatchResponse]:
    call = front.stub.PredictBatch(request, timeout=timeout_s)
    return [response async for response in call]


async def refusal(front: FrontEnd, request: pb.PredictBatchRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_of(front, request)
    return caught.value


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return status_pb2.Status.FromString(packed)


def reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in status.details)
    return str(info.reason)


def field(status: status_pb2.Status) -> str:
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in status.details)
    [violation] = found.field_violations
    return str(violation.field)


async def test_every_image_is_answered_once_under_its_index(front: FrontEnd) -> None:
    images = [f"image-{number}".encode() for number in range(20)]
    responses = await all_of(front, batch(*images, request_id="b7"))
    assert sorted(response.index for response in responses) == list(range(20))
    for response in responses:
        assert response.request_id == response.response.request_id == f"b7-{response.index}"
        assert response.response.predictions[0].label == "cat"
    assert {seen.job.request_id: seen.image for seen in front.relay.submitted} == {
        f"b7-{index}": image for index, image in enumerate(images)
    }


async def test_as_many_images_as_the_contract_says_are_accepted() -> None:
    async with front_end() as front:
        responses = await all_of(front, batch(*[b"x"] * MAX_BATCH_IMAGES))
        assert {response.index for response in responses} == set(range(MAX_BATCH_IMAGES))


async def test_millions_of_images_are_refused_before_there_are_any() -> None:
    async with front_end() as front:
        # Not by the generated code, which would take as much here as there.
        method: Any = front.channel.unary_stream("/prediction.v1.PredictionService/PredictBatch")
        call = method(b"\x12\x00" * 8_000_000, timeout=LIMIT_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    # The count of a batch that was parsed would be told.
    assert "more than 4096 fields" in str(caught.value.details())
    assert field(status_of(caught.value)) == "images"


async def test_an_image_keeps_the_id_it_has_even_if_others_have_the_same(front: FrontEnd) -> None:
    request = pb.PredictBatchRequest(
        images=[pb.BatchImage(image=b"x", request_id="mine")] * 2 + [pb.BatchImage(image=b"x")],
    )
    call = front.stub.PredictBatch(request, metadata=(("x-request-id", "call"),), timeout=LIMIT_S)
    assert {response.index: response.request_id async for response in call} == {
        0: "mine",
        1: "mine",
        2: "call-2",
    }
    assert dict(await call.trailing_metadata())["x-request-id"] == "call"


async def test_the_options_are_those_of_each_image(front: FrontEnd) -> None:
    request = batch(b"a", b"b", model=MODEL, top_k=3, priority=pb.PRIORITY_LOW, include_scores=True)
    call = front.stub.PredictBatch(
        request, metadata=(("traceparent", TRACEPARENT),), timeout=LIMIT_S
    )
    assert [len(response.response.scores) async for response in call] == [2, 2]
    for seen in front.relay.submitted:
        assert seen.priority is Priority.LOW
        assert (seen.job.model, seen.job.top_k) == (MODEL, 3)
        assert seen.job.traceparent == TRACEPARENT


async def test_answers_come_as_the_work_finishes(front: FrontEnd) -> None:
    call = front.stub.PredictBatch(batch(b"hold", b"quick"), timeout=LIMIT_S)
    first = await call.read()
    front.relay.release_all()
    second = await call.read()
    assert isinstance(first, pb.PredictBatchResponse)
    assert isinstance(second, pb.PredictBatchResponse)
    assert (first.index, second.index) == (1, 0)
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_bad_image_fails_alone(front: FrontEnd) -> None:
    front.relay.failures = {
        b"torn": errors.ImageUndecodable("torn"),
        b"full": errors.QueueFull("jobs", "full"),
        b"bug": KeyError("secret"),
        b"ours": asyncio.CancelledError(),
    }
    request = batch(b"torn", b"full", b"bug", b"ours", b"", b"x" * 1001, b"good", b"good")
    request.images[6].request_id = "x" * 129
    responses = await all_of(front, request)
    assert {
        response.index: (response.failure.code, reason(response.failure))
        for response in responses
        if response.HasField("failure")
    } == {
        0: (grpc.StatusCode.INVALID_ARGUMENT.value[0], "IMAGE_UNDECODABLE"),
        1: (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "QUEUE_FULL"),
        2: (grpc.StatusCode.INTERNAL.value[0], "INTERNAL"),
        3: (grpc.StatusCode.INTERNAL.value[0], "INTERNAL"),
        4: (grpc.StatusCode.INVALID_ARGUMENT.value[0], "IMAGE_EMPTY"),
        5: (grpc.StatusCode.INVALID_ARGUMENT.value[0], "IMAGE_TOO_LARGE"),
        6: (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_ARGUMENT"),
    }
    [good] = [response for response in responses if response.HasField("response")]
    assert good.index == 7
    assert b"secret" not in b"".join(response.SerializeToString() for response in responses)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (batch(), "images"),
        (batch(*[b"x"] * (MAX_BATCH_IMAGES + 1)), "images"),
        (batch(b"x", top_k=1001), "top_k"),
        (batch(b"x", priority=9), "priority"),
        (batch(b"x", request_id="x" * 129), "request_id"),
    ],
    ids=["no images", "too many images", "top_k", "priority", "request_id"],
)
async def test_a_bad_option_ends_the_call_before_any_image_is_labelled(
    front: FrontEnd, request_: pb.PredictBatchRequest, named: str
) -> None:
    error = await refusal(front, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field(status_of(error)) == named
    assert front.relay.submitted == []


async def test_an_unknown_model_ends_the_call(front: FrontEnd) -> None:
    error = await refusal(front, batch(b"x", model="nope"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason(status_of(error)) == "MODEL_NOT_FOUND"


async def test_bytes_that_are_no_message_are_refused(front: FrontEnd) -> None:
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = front.channel.unary_stream(
        "/prediction.v1.PredictionService/PredictBatch"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff", timeout=LIMIT_S).read()
    assert reason(status_of(caught.value)) == "INVALID_ARGUMENT"


async def test_no_more_images_are_begun_while_the_window_is_full(front: FrontEnd) -> None:
    held = [f"hold-{number}".encode() for number in range(5)]
    call = front.stub.PredictBatch(batch(*held), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    # A whole round trip later it still has not begun more.
    await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    assert len(front.relay.submitted) == 3
    front.relay.release(held[1])
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 4)
    front.relay.release_all()
    assert len([response async for response in call]) == 5


async def test_a_caller_who_does_not_read_stops_the_batch() -> None:
    # An answer of 400 KB; a connection that takes little in advance.
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
    async with front_end(stream_window=3, channel_options=options) as front:
        front.relay.scores = [0.5] * 100_000
        request = batch(*[b"x"] * 100, include_scores=True)
        call = front.stub.PredictBatch(request, timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) >= 3)
        for _ in range(20):
            await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
        # A window, and what the connection took.
        assert len(front.relay.submitted) <= 5
        assert len([response async for response in call]) == 100


async def test_cancelling_the_call_cancels_every_image_in_it(front: FrontEnd) -> None:
    held = [f"hold-{number}".encode() for number in range(5)]
    call = front.stub.PredictBatch(batch(*held), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    call.cancel()
    await front.relay.notice.until(lambda: sorted(front.relay.cancelled) == held[:3])
    await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    assert len(front.relay.submitted) == 3


async def test_the_images_of_a_batch_share_its_deadline(front: FrontEnd) -> None:
    await all_of(front, batch(b"a"), 50)
    await all_of(front, batch(b"b"), 5000)
    await all_of(front, batch(b"c", b"d"), None)
    given, capped, first, second = (seen.timeout_s for seen in front.relay.submitted)
    assert 40 < given <= 50
    assert 299 < capped <= 300
    # Counted from the beginning of the call, not of each image.
    assert 29 < second < first <= 30


async def test_images_that_were_not_begun_before_the_deadline_say_so() -> None:
    async with front_end(default_deadline_s=1e-9) as front:
        responses = await all_of(front, batch(b"a", b"b"), None)
        assert [reason(response.failure) for response in responses] == ["EXPIRED_IN_QUEUE"] * 2
        assert front.relay.submitted == []


async def test_batches_that_this_server_has_no_room_for_are_refused() -> None:
    async with front_end(max_receiving_bytes=150) as front:
        # One alone may be larger than the limit.
        call = front.stub.PredictBatch(batch(b"hold" + b"x" * 200), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
        error = await refusal(front, batch(b"x"))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(status_of(error)) == "QUEUE_FULL"
        quota = error_details_pb2.QuotaFailure()
        assert any(packed.Unpack(quota) for packed in status_of(error).details)
        assert quota.violations[0].subject == "server/receiving"
        call.cancel()
        await front.relay.notice.until(lambda: len(front.relay.cancelled) == 1)
        await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
        assert len(await all_of(front, batch(b"x" * 50, b"x" * 50))) == 2
        assert len(await all_of(front, batch(b"x" * 50, b"x" * 50))) == 2


def stoppable(drain_s: float) -> Stoppable:
    return Stoppable(front_end(stream_window=3, drain_notice_s=drain_s / 2, drain_s=drain_s))


async def begun(front: FrontEnd) -> tuple["asyncio.Task[list[int]]", list[BaseException]]:
    """Send a batch that is held, on a channel of its own; return what will come of it."""
    channel = grpc.aio.insecure_channel(front.address)
    failures: list[BaseException] = []

    async def answered() -> list[int]:
        held = [f"hold-{number}".encode() for number in range(5)]
        call = PredictionServiceStub(channel).PredictBatch(batch(*held), timeout=LIMIT_S)
        indices = []
        async with channel:
            try:
                async for response in call:
                    assert response.HasField("response") or (reason(response.failure) == "DRAINING")
                    indices.append(response.index)
            except grpc.aio.AioRpcError as error:
                failures.append(error)
        return indices

    task = asyncio.create_task(answered())
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    return task, failures


async def test_a_draining_server_answers_all_images_of_a_batch() -> None:
    async with stoppable(LIMIT_S) as running:
        answered, failures = await begun(running.front)
        end = running.stop()
        running.front.relay.release_all()
        assert sorted(await answered) == [0, 1, 2, 3, 4]
        assert failures == []
        async with asyncio.timeout(LIMIT_S):
            await end


async def test_a_batch_that_does_not_end_in_time_is_cut_off_with_a_reason() -> None:
    async with stoppable(0.4) as running:
        answered, failures = await begun(running.front)
        async with asyncio.timeout(LIMIT_S):
            await running.stop()
        assert sorted(await answered) == [0, 1, 2]
    [failure] = failures
    assert isinstance(failure, grpc.aio.AioRpcError)
    assert reason(status_of(failure)) == "DRAINING"
