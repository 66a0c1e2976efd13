"""Batches and uploads on a whole system: a Valkey, a front-end process, worker processes."""

import asyncio

import grpc
import pytest

from client import AsyncClient
from prediction.v1 import prediction_pb2
from tests.stack import (
    RESUME,
    STALL,
    Stack,
    colour_of,
    colours,
    details_of_status,
    image_of,
    reason_of,
    request_for,
)
from tests.worker_process import LABELS, MODEL, RAISE


def batch_of(images: list[bytes]) -> prediction_pb2.PredictBatchRequest:
    return prediction_pb2.PredictBatchRequest(
        model=MODEL,
        images=[prediction_pb2.BatchImage(image=image) for image in images],
        include_scores=True,
        top_k=len(LABELS),
    )


async def answers_to(
    stack: Stack, images: list[bytes], timeout_s: float = 45
) -> list[prediction_pb2.PredictBatchResponse]:
    """Return the outcomes in the order of the images."""
    call = stack.stub().PredictBatch(batch_of(images), timeout=timeout_s)
    return sorted([response async for response in call], key=lambda response: response.index)


def upload_of(
    image: bytes, chunk_bytes: int, *, total_bytes: int = 0
) -> list[prediction_pb2.PredictUploadRequest]:
    options = prediction_pb2.UploadOptions(
        model=MODEL, include_scores=True, top_k=len(LABELS), total_bytes=total_bytes
    )
    return [
        prediction_pb2.PredictUploadRequest(options=options),
        *(
            prediction_pb2.PredictUploadRequest(chunk=image[begin : begin + chunk_bytes])
            for begin in range(0, len(image), chunk_bytes)
        ),
    ]


async def test_each_image_of_a_batch_gets_its_own_answer_or_failure(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    stack.start_worker()
    await stack.until_ready(workers=2)
    wanted = colours(253)
    images = [*(image_of(colour) for colour in wanted), b"", b"no image", image_of(RAISE)]
    *answered, empty, unsupported, raised = await answers_to(stack, images)
    assert [colour_of(each.response) for each in answered] == wanted
    assert [each.index for each in (empty, unsupported, raised)] == [253, 254, 255]
    assert [
        details_of_status(each.failure)["ErrorInfo"].reason for each in (empty, unsupported, raised)
    ] == ["IMAGE_EMPTY", "IMAGE_FORMAT_UNSUPPORTED", "INFERENCE_FAILED"]
    assert stack.totals() == {"accepted": 255, "completed": 253, "failed": 2}
    stack.assert_nothing_is_left()


async def test_a_worker_killed_in_the_middle_of_a_batch_loses_no_image(stack: Stack) -> None:
    stack.start_server(stream_window=20)
    worker = stack.start_worker(inference_ms=200)
    await stack.until_ready()
    wanted = colours(60)
    answers = asyncio.create_task(answers_to(stack, [image_of(colour) for colour in wanted]))
    await stack.until(lambda: len(stack.inferred()) >= 16, 10)
    worker.kill()
    assert stack.entries() <= 20
    stack.start_worker()
    responses = await answers
    assert [each.index for each in responses] == list(range(60))
    assert [colour_of(each.response) for each in responses] == wanted
    assert {each.response.timing.attempt for each in responses} == {1, 2}
    assert stack.totals() == {"accepted": 60, "completed": 60}
    stack.assert_nothing_is_left()


async def test_a_cancelled_batch_is_not_inferred(stack: Stack) -> None:
    stack.start_server(stream_window=20)
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    images = [image_of(colour) for colour in colours(60)]
    call = stack.stub().PredictBatch(batch_of(images), timeout=30)
    await stack.until(lambda: stack.entries() == 20, 10)
    call.cancel()
    await stack.until(lambda: stack.entries() == 0, 10)
    worker.send(RESUME)
    await stack.until_ready()
    await stack.stub().Predict(request_for((7, 8, 9)), timeout=30)
    assert stack.inferred() == {(7, 8, 9): 1}
    assert stack.totals() == {"accepted": 21, "completed": 1, "cancelled": 20}
    stack.assert_nothing_is_left()


async def test_the_images_of_a_batch_whose_time_is_over_say_so_one_by_one(stack: Stack) -> None:
    # A second try finds the worker stalled for longer than its announcement lasts.
    stack.start_server(stream_window=20, no_worker_grace_s=30)
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    images = [image_of(each) for each in colours(60)]
    before = stack.totals()
    while True:
        try:
            responses = await answers_to(stack, images, timeout_s=2)
            break
        except grpc.aio.AioRpcError as error:
            if reason_of(error):
                raise
            # On a busy machine the caller's own timer may come first, 20 ms later.
            await stack.until(lambda: stack.entries() == 0, 5)
            before = stack.totals()
    assert [each.index for each in responses] == list(range(60))
    assert {details_of_status(each.failure)["ErrorInfo"].reason for each in responses} == {
        "EXPIRED_IN_QUEUE"
    }
    await stack.until(lambda: stack.entries() == 0, 5)
    worker.send(RESUME)
    await stack.until_ready()
    assert stack.inferred() == {}
    # The others never went into the queue.
    after = stack.totals()
    ended = {name: count - before.get(name, 0) for name, count in after.items()}
    assert {name: count for name, count in ended.items() if count} == {
        "accepted": 20,
        "expired": 20,
    }
    stack.assert_nothing_is_left()


async def test_an_upload_in_chunks_is_the_image(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    stub = stack.stub()
    image = image_of((9, 8, 7))
    for chunk_bytes in (1, 7, len(image)):
        for total_bytes in (0, len(image)):
            parts = upload_of(image, chunk_bytes, total_bytes=total_bytes)
            answer = await stub.PredictUpload(iter(parts), timeout=30)
            assert colour_of(answer.response) == (9, 8, 7)
    async with AsyncClient(stack.address) as client:
        result = await client.predict_upload([image[:9], image[9:]], total_bytes=len(image))
    assert [label.label for label in result.labels] == list(LABELS)
    assert stack.totals() == {"accepted": 7, "completed": 7}
    stack.assert_nothing_is_left()


async def test_the_largest_upload_is_received_and_a_larger_one_refused(stack: Stack) -> None:
    mib = 1024 * 1024
    stack.start_server(max_image_bytes=4 * mib)
    stack.start_worker()
    await stack.until_ready()
    stub = stack.stub()
    # What follows the image in its file is not looked at.
    largest = image_of((9, 8, 7)).ljust(4 * mib, b"\0")
    answer = await stub.PredictUpload(iter(upload_of(largest, 64 * 1024)), timeout=30)
    assert colour_of(answer.response) == (9, 8, 7)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PredictUpload(iter(upload_of(largest + b"\0", 64 * 1024)), timeout=30)
    assert reason_of(caught.value) == "IMAGE_TOO_LARGE"
    assert stack.totals() == {"accepted": 1, "completed": 1}


async def test_a_worker_killed_with_an_uploaded_image_loses_nothing(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=500)
    await stack.until_ready()
    parts = upload_of(image_of((9, 8, 7)), 16)
    answer = asyncio.ensure_future(uploaded(stack, parts))
    await stack.until(lambda: bool(stack.inferred()), 10)
    worker.kill()
    stack.start_worker()
    response = await answer
    assert colour_of(response) == (9, 8, 7)
    assert response.timing.attempt == 2
    stack.assert_nothing_is_left()


async def uploaded(
    stack: Stack, parts: list[prediction_pb2.PredictUploadRequest]
) -> prediction_pb2.PredictResponse:
    return (await stack.stub().PredictUpload(iter(parts), timeout=45)).response
