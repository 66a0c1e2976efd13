"""What a caller sees when workers are killed, stalled, replaced or fed rubbish.

Everything is real: a Valkey, a front-end process, worker processes. Only the
model is small.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import status_pb2

from dispatch import keys
from prediction.v1 import prediction_pb2
from tests.stack import (
    NO_WORKER_GRACE_S,
    RESUME,
    STALL,
    Stack,
    colour_of,
    colours,
    details_of,
    details_of_status,
    image_of,
    reason_of,
    refusal,
    request_for,
)
from tests.worker_process import CRASH, MODEL, RAISE


def failed_for(failure: status_pb2.Status) -> str:
    reason: str = details_of_status(failure)["ErrorInfo"].reason
    return reason


async def test_each_caller_gets_the_answer_to_its_own_image(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    stack.start_worker()
    await stack.until_ready(workers=2)
    wanted = colours(300)
    responses = await stack.predict_all(wanted)
    assert [colour_of(response) for response in responses] == wanted
    assert {response.timing.attempt for response in responses} == {1}
    assert len({response.worker for response in responses}) == 2
    assert stack.totals() == {"accepted": 300, "completed": 300}
    stack.assert_nothing_is_left()


async def test_a_killed_worker_loses_no_call(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker(inference_ms=200)
    await stack.until_ready()
    wanted = colours(50)
    answers = asyncio.create_task(stack.predict_all(wanted))
    # Not how many are there: the first may have ended before the last has come.
    await stack.until(lambda: stack.totals().get("accepted") == 50, 10)
    await stack.until(lambda: bool(stack.inferred()), 10)
    worker.kill()
    stack.start_worker()
    responses = await answers
    assert [colour_of(response) for response in responses] == wanted
    assert {response.timing.attempt for response in responses} == {1, 2}
    assert stack.totals() == {"accepted": 50, "completed": 50}
    stack.assert_nothing_is_left()


async def test_a_job_that_kills_workers_is_set_aside_and_takes_no_neighbour_along(
    stack: Stack,
) -> None:
    stack.start_server()
    workers = [stack.start_worker(inference_ms=50)]
    await stack.until_ready()
    neighbours = colours(12)
    answers = asyncio.create_task(stack.predict_all(neighbours, timeout_s=45))
    poison = asyncio.create_task(stack.predict_all([CRASH], timeout_s=45))
    for _ in range(2):
        await asyncio.to_thread(workers[-1].wait)
        workers.append(stack.start_worker(inference_ms=50))
    assert [colour_of(response) for response in await answers] == neighbours
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await poison
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert reason_of(caught.value) == "JOB_POISONED"
    assert stack.inferred()[CRASH] == 2
    assert [CRASH] in stack.batches()  # alone the second time
    assert stack.totals() == {"accepted": 13, "completed": 12, "poisoned": 1}
    with stack.redis.client() as client:
        assert client.xlen(keys.dead(MODEL)) == 1
    stack.assert_nothing_is_left()


async def test_an_image_on_which_the_model_raises_fails_alone(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    stub = stack.stub()
    wanted = colours(5)
    calls = [stub.Predict(request_for(colour), timeout=30) for colour in [*wanted, RAISE]]
    await stack.until(lambda: stack.entries() == 6, 10)
    worker.send(RESUME)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    *responses, failure = outcomes
    assert [
        colour_of(response)
        for response in responses
        if isinstance(response, prediction_pb2.PredictResponse)
    ] == wanted
    assert isinstance(failure, grpc.aio.AioRpcError)
    assert failure.code() == grpc.StatusCode.INTERNAL
    assert reason_of(failure) == "INFERENCE_FAILED"
    assert stack.totals() == {"accepted": 6, "completed": 5, "failed": 1}
    stack.assert_nothing_is_left()


async def test_without_a_worker_calls_are_refused_after_the_grace(stack: Stack) -> None:
    stack.start_server()
    stub = stack.stub()
    with pytest.raises(grpc.aio.AioRpcError) as never_seen:
        await stub.Predict(request_for((1, 2, 3)), timeout=5)
    assert never_seen.value.code() == grpc.StatusCode.NOT_FOUND
    assert reason_of(never_seen.value) == "MODEL_NOT_FOUND"

    worker = stack.start_worker()
    await stack.until_ready()
    assert worker.terminate() == 0
    waiting = asyncio.create_task(stack.predict_all([(9, 9, 9)]))
    await stack.until(lambda: stack.entries() == 1, 5)

    async def is_refused() -> bool:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(request_for((4, 5, 6)), timeout=0.5)
        return caught.value.code() == grpc.StatusCode.UNAVAILABLE

    await stack.until(is_refused, NO_WORKER_GRACE_S + 10)
    begun = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Predict(request_for((4, 5, 6)), timeout=30)
    assert time.monotonic() - begun < 1
    assert reason_of(caught.value) == "NO_WORKER"
    assert details_of(caught.value)["RetryInfo"].retry_delay.seconds > 0
    # The one that was accepted within the grace is answered by the next worker.
    stack.start_worker()
    assert [colour_of(response) for response in await waiting] == [(9, 9, 9)]


async def test_a_deadline_on_a_stalled_worker_ends_in_time_and_is_never_inferred(
    stack: Stack,
) -> None:
    # Its own limit: the timer of a caller might end before the reason has come.
    stack.start_server(max_deadline_s=1)
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    begun = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.stub().Predict(request_for((1, 2, 3)), timeout=30)
    assert 0.9 < time.monotonic() - begun < 3
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason_of(caught.value) == "EXPIRED_IN_QUEUE"
    await stack.until(lambda: stack.entries() == 0, 5)
    stack.start_server()  # with more patience
    worker.send(RESUME)
    await stack.until_ready()
    await stack.predict_all([(7, 8, 9)])
    assert stack.inferred() == {(7, 8, 9): 1}
    assert stack.totals() == {"accepted": 2, "completed": 1, "expired": 1}
    stack.assert_nothing_is_left()


async def test_a_cancelled_call_is_never_inferred(stack: Stack) -> None:
    stack.start_server()
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    stub = stack.stub()
    calls = [stub.Predict(request_for(colour), timeout=30) for colour in colours(20)]
    await stack.until(lambda: stack.entries() == 20, 10)
    for call in calls:
        call.cancel()
    await stack.until(lambda: stack.entries() == 0, 10)
    worker.send(RESUME)
    await stack.until_ready()
    await stack.predict_all([(7, 8, 9)])
    assert stack.inferred() == {(7, 8, 9): 1}
    assert stack.totals() == {"accepted": 21, "completed": 1, "cancelled": 20}
    stack.assert_nothing_is_left()


async def test_replacing_a_worker_under_load_fails_no_call_and_counts_no_attempt(
    stack: Stack,
) -> None:
    stack.start_server()
    old = stack.start_worker(inference_ms=30)
    await stack.until_ready()
    wanted = colours(400)
    answers = asyncio.create_task(stack.predict_all(wanted))
    await stack.until(lambda: len(stack.inferred()) > 40, 10)
    assert old.terminate() == 0
    stack.start_worker()
    responses = await answers
    assert [colour_of(response) for response in responses] == wanted
    assert {response.timing.attempt for response in responses} == {1}
    assert max(stack.inferred().values()) == 1
    assert stack.totals() == {"accepted": 400, "completed": 400}
    stack.assert_nothing_is_left()


async def test_jobs_given_back_when_the_grace_is_over_count_no_attempt(stack: Stack) -> None:
    stack.start_server()
    old = stack.start_worker(inference_ms=5000, batch=2, stop_grace_s=1)
    await stack.until_ready()
    wanted = colours(4)
    answers = asyncio.create_task(stack.predict_all(wanted, timeout_s=40))
    await stack.until(lambda: len(stack.inferred()) >= 1, 10)
    old.send(signal.SIGTERM)
    stack.start_worker()
    responses = await answers
    assert [colour_of(response) for response in responses] == wanted
    assert {response.timing.attempt for response in responses} == {1}
    await asyncio.to_thread(old.wait, 30)


async def test_an_inference_longer_than_a_lease_is_not_repeated(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker(inference_ms=5000)
    stack.start_worker(inference_ms=5000)
    await stack.until_ready(workers=2)
    (response,) = await stack.predict_all([(7, 8, 9)])
    assert response.timing.attempt == 1
    assert stack.inferred() == {(7, 8, 9): 1}


async def test_a_worker_that_slept_beyond_its_lease_publishes_no_second_answer(
    stack: Stack,
) -> None:
    stack.start_server()
    sleeper = stack.start_worker(inference_ms=500)
    await stack.until_ready()
    answer = asyncio.create_task(stack.predict_all([(7, 8, 9)]))
    await stack.until(lambda: bool(stack.inferred()), 10)
    sleeper.send(STALL)
    stack.start_worker()
    (response,) = await answer
    assert response.timing.attempt == 2
    sleeper.send(RESUME)
    await stack.until_ready(workers=2)
    assert stack.totals() == {"accepted": 1, "completed": 1}
    stack.assert_nothing_is_left()


async def test_a_worker_whose_model_hangs_ends_and_its_job_is_done_by_another(
    stack: Stack,
) -> None:
    stack.start_server()
    hanging = stack.start_worker(inference_ms=60_000, max_inference_s=1)
    await stack.until_ready()
    answer = asyncio.create_task(stack.predict_all([(7, 8, 9)]))
    await stack.until(lambda: bool(stack.inferred()), 10)
    stack.start_worker()
    (response,) = await answer
    assert response.timing.attempt == 2
    assert await asyncio.to_thread(hanging.wait) == 1


async def test_bad_images_in_a_stream_fail_alone(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    png = image_of((10, 20, 30))
    bad = {
        "empty": (b"", "IMAGE_EMPTY"),
        "text": (b"not an image", "IMAGE_FORMAT_UNSUPPORTED"),
        "truncated": (png[: len(png) // 2], "IMAGE_UNDECODABLE"),
    }

    async def requests() -> AsyncIterator[prediction_pb2.PredictStreamRequest]:
        for index, colour in enumerate(colours(30)):
            yield prediction_pb2.PredictStreamRequest(
                request=request_for(colour, request_id=str(index))
            )
        for name, (image, _) in bad.items():
            yield prediction_pb2.PredictStreamRequest(
                request=prediction_pb2.PredictRequest(model=MODEL, image=image, request_id=name)
            )

    answers = {}
    failures = {}
    async for outcome in stack.stub().PredictStream(requests(), timeout=30):
        if outcome.HasField("response"):
            answers[outcome.request_id] = colour_of(outcome.response)
        else:
            failures[outcome.request_id] = outcome.failure
    assert answers == {str(index): colour for index, colour in enumerate(colours(30))}
    assert {name: failed_for(failure) for name, failure in failures.items()} == {
        name: reason for name, (_, reason) in bad.items()
    }
    stack.assert_nothing_is_left()


async def test_what_was_accepted_before_the_queue_was_full_is_answered(stack: Stack) -> None:
    stack.start_server(queue_max_jobs=5)
    worker = stack.start_worker()
    await stack.until_ready()
    worker.send(STALL)
    accepted = asyncio.create_task(stack.predict_all(colours(5)))
    await stack.until(lambda: stack.entries() == 5, 10)
    assert reason_of(await refusal(stack.stub().Predict(request_for((7, 8, 9))))) == "QUEUE_FULL"
    worker.send(RESUME)
    assert [colour_of(response) for response in await accepted] == colours(5)
    stack.assert_nothing_is_left()
