"""What callers of `PredictionService.PredictStream` may rely on."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2

from dispatch import errors
from prediction.v1 import prediction_pb2 as pb
from tests.front_end import LIMIT_S, FrontEnd, front_end


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end(stream_window=3) as running:
        yield running


def item(image: bytes, request_id: str = "") -> pb.PredictStreamRequest:
    request = pb.PredictRequest(image=image, request_id=request_id or image.decode())
    return pb.PredictStreamRequest(request=request)


async def all_of(
    front: FrontEnd, *items: pb.PredictStreamRequest
) -> list[pb.PredictStreamResponse]:
    """Send `items` and the end of the stream; return the responses until its end."""
    return [response async for response in front.stub.PredictStream(iter(items), timeout=LIMIT_S)]


async def test_every_request_is_answered_before_the_stream_ends(front: FrontEnd) -> None:
    images = [f"image-{number}".encode() for number in range(20)]
    responses = await all_of(front, *(item(image) for image in images))
    assert sorted(response.request_id for response in responses) == sorted(
        image.decode() for image in images
    )
    assert all(response.response.predictions[0].label == "cat" for response in responses)
    assert all(response.response.request_id == response.request_id for response in responses)


async def test_an_empty_stream_ends_well(front: FrontEnd) -> None:
    assert await all_of(front) == []


async def test_answers_come_as_the_work_finishes(front: FrontEnd) -> None:
    call = front.stub.PredictStream(timeout=LIMIT_S)
    await call.write(item(b"hold"))
    await call.write(item(b"quick"))
    await call.done_writing()
    first = await call.read()
    front.relay.release_all()
    second = await call.read()
    assert isinstance(first, pb.PredictStreamResponse)
    assert isinstance(second, pb.PredictStreamResponse)
    assert (first.request_id, second.request_id) == ("quick", "hold")
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_bad_image_fails_alone(front: FrontEnd) -> None:
    front.relay.failures = {
        b"torn": errors.ImageUndecodable("torn"),
        b"full": errors.QueueFull("jobs", "full"),
        b"bug": KeyError("secret"),
        b"ours": asyncio.CancelledError(),
    }
    images = (b"torn", b"good", b"full", b"bug", b"ours", b"")
    responses = await all_of(front, *(item(image, f"id-{image.decode()}") for image in images))
    outcomes = {
        response.request_id: (response.failure.code, reason(response))
        for response in responses
        if response.HasField("failure")
    }
    assert outcomes == {
        "id-torn": (grpc.StatusCode.INVALID_ARGUMENT.value[0], "IMAGE_UNDECODABLE"),
        "id-full": (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "QUEUE_FULL"),
        "id-bug": (grpc.StatusCode.INTERNAL.value[0], "INTERNAL"),
        "id-ours": (grpc.StatusCode.INTERNAL.value[0], "INTERNAL"),
        "id-": (grpc.StatusCode.INVALID_ARGUMENT.value[0], "IMAGE_EMPTY"),
    }
    [good] = [response for response in responses if response.HasField("response")]
    assert good.request_id == "id-good"
    assert b"secret" not in b"".join(response.SerializeToString() for response in responses)


def reason(response: pb.PredictStreamResponse) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in response.failure.details)
    return str(info.reason)


async def test_an_item_without_a_request_fails_alone(front: FrontEnd) -> None:
    responses = await all_of(front, pb.PredictStreamRequest(), item(b"good"))
    [failed] = [response for response in responses if response.HasField("failure")]
    assert failed.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert len(responses) == 2


async def test_an_item_without_an_id_gets_one(front: FrontEnd) -> None:
    request = pb.PredictRequest(image=b"x")
    [response] = await all_of(front, pb.PredictStreamRequest(request=request))
    assert len(response.request_id) == 32
    assert response.response.request_id == response.request_id


async def test_the_server_stops_reading_while_the_window_is_full(front: FrontEnd) -> None:
    held = [f"hold-{number}".encode() for number in range(5)]
    call = front.stub.PredictStream((item(image) for image in held), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    # A whole round trip later it still has not read more.
    await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    assert len(front.relay.submitted) == 3
    front.relay.release(held[1])
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 4)
    front.relay.release_all()
    assert len([response async for response in call]) == 5


async def test_cancelling_the_stream_cancels_every_image_in_it(front: FrontEnd) -> None:
    held = [b"hold-1", b"hold-2", b"hold-3"]
    call = front.stub.PredictStream((item(image) for image in held), timeout=LIMIT_S)
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 3)
    call.cancel()
    await front.relay.notice.until(lambda: sorted(front.relay.cancelled) == held)


async def test_the_images_of_a_stream_share_its_deadline(front: FrontEnd) -> None:
    call = front.stub.PredictStream(iter([item(b"a")]), timeout=50)
    assert [response.request_id async for response in call] == ["a"]
    call = front.stub.PredictStream(iter([item(b"b")]))
    assert [response.request_id async for response in call] == ["b"]
    shared, own = front.relay.submitted
    assert 40 < shared.timeout_s <= 50
    assert own.timeout_s == 30


async def test_bytes_that_are_no_message_end_the_stream_after_what_came_before(
    front: FrontEnd,
) -> None:
    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = front.channel.stream_stream(
        "/prediction.v1.PredictionService/PredictStream"
    )
    stream = call(iter([item(b"good").SerializeToString(), b"\xff\xff"]), timeout=LIMIT_S)
    response = await stream.read()
    assert isinstance(response, bytes)
    assert pb.PredictStreamResponse.FromString(response).request_id == "good"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
