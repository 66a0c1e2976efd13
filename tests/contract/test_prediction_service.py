"""What callers of `prediction.v1.PredictionService` may rely on."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from dispatch import errors
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2 as pb
from tests.front_end import LIMIT_S, MODEL, FrontEnd, front_end

Detail = TypeVar("Detail", bound=Message)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    return status_pb2.Status.FromString(trailers_of(error)["grpc-status-details-bin"])


def trailers_of(error: grpc.aio.AioRpcError) -> dict[str, str | bytes]:
    return dict(error.trailing_metadata() or ())


def detail(status: status_pb2.Status, kind: type[Detail]) -> Detail:
    found = kind()
    assert any(packed.Unpack(found) for packed in status.details), f"no {kind}"
    return found


async def refusal(front: FrontEnd, request: pb.PredictRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.stub.Predict(request, timeout=LIMIT_S)
    return caught.value


async def test_predict_returns_what_the_worker_said(front: FrontEnd) -> None:
    request = pb.PredictRequest(image=b"cat", request_id="mine", include_scores=True)
    response = await front.stub.Predict(request, timeout=LIMIT_S)
    assert response.request_id == "mine"
    assert (response.model, response.model_version) == (MODEL, "1.0")
    assert [(p.label, p.class_id) for p in response.predictions] == [("cat", 281)]
    assert len(response.scores) == 2
    assert response.worker == "worker-1"
    timing = response.timing
    assert timing.queue.ToMicroseconds() == 1_500
    assert timing.decode.ToMicroseconds() == 2_000_000
    assert timing.inference.ToMicroseconds() == 30
    assert 0 <= timing.total.ToMicroseconds() < LIMIT_S * 1_000_000
    assert (timing.batch_size, timing.attempt) == (4, 1)


async def test_predict_hands_the_request_to_the_relay(front: FrontEnd) -> None:
    request = pb.PredictRequest(image=b"cat", top_k=3, priority=pb.PRIORITY_HIGH)
    metadata = (("traceparent", TRACEPARENT), ("x-request-id", "from-metadata"))
    await front.stub.Predict(request, metadata=metadata, timeout=LIMIT_S)
    [seen] = front.relay.submitted
    assert seen.image == b"cat"
    assert seen.priority is Priority.HIGH
    assert seen.job.model == MODEL
    assert seen.job.top_k == 3
    assert seen.job.request_id == "from-metadata"
    assert seen.job.traceparent == TRACEPARENT


async def test_what_a_request_leaves_out_has_a_default(front: FrontEnd) -> None:
    response = await front.stub.Predict(pb.PredictRequest(image=b"cat"))
    [seen] = front.relay.submitted
    assert seen.job.top_k == 5
    assert seen.priority is Priority.NORMAL
    assert seen.timeout_s == 30
    assert len(response.request_id) == 32
    assert seen.job.request_id == response.request_id


async def test_the_deadline_reaches_the_relay_and_is_capped() -> None:
    async with front_end(max_deadline_s=100) as front:
        await front.stub.Predict(pb.PredictRequest(image=b"a"), timeout=50)
        await front.stub.Predict(pb.PredictRequest(image=b"b"), timeout=5000)
        short, capped = front.relay.submitted
        assert 40 < short.timeout_s <= 50
        assert capped.timeout_s == 100


@pytest.mark.parametrize("timeout_s", [1.001, 10.01, 100.1, 1001])
async def test_the_relay_never_gets_more_time_than_the_caller_has(timeout_s: float) -> None:
    # Just above a step of the rounding that timeouts suffer on their way.
    async with front_end(max_deadline_s=2000) as front:
        await front.stub.Predict(pb.PredictRequest(image=b"x"), timeout=timeout_s)
        assert front.relay.submitted[0].timeout_s <= timeout_s


async def test_the_request_id_is_echoed_in_the_trailers(front: FrontEnd) -> None:
    call = front.stub.Predict(pb.PredictRequest(image=b"cat", request_id="mine"))
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
    error = await refusal(front, pb.PredictRequest(request_id="mine"))
    assert trailers_of(error)["x-request-id"] == "mine"


async def test_a_full_queue_says_which_limit_and_when_to_come_back(front: FrontEnd) -> None:
    front.relay.failures[b"bad"] = errors.QueueFull("model:m/jobs", "full", retry_after_s=0.2501)
    seen = await refusal(front, pb.PredictRequest(image=b"bad"))
    status = status_of(seen)
    [violation] = detail(status, error_details_pb2.QuotaFailure).violations
    assert violation.subject == "model:m/jobs"
    assert detail(status, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 251
    # Callers that obey this one add no jitter, so the server does: up to half as much again.
    assert 251 <= int(trailers_of(seen)["grpc-retry-pushback-ms"]) <= 377


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (pb.PredictRequest(), "image", "IMAGE_EMPTY"),
        (pb.PredictRequest(image=b"x" * 101), "image", "IMAGE_TOO_LARGE"),
        (pb.PredictRequest(image=b"x", top_k=-1), "top_k", "INVALID_ARGUMENT"),
        (pb.PredictRequest(image=b"x", top_k=1001), "top_k", "INVALID_ARGUMENT"),
        (pb.PredictRequest(image=b"x", request_id="é"), "request_id", "INVALID_ARGUMENT"),
        (pb.PredictRequest(image=b"x", request_id="x" * 129), "request_id", "INVALID_ARGUMENT"),
        (pb.PredictRequest(image=b"x", priority=9), "priority", "INVALID_ARGUMENT"),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_field_is_named(request_: pb.PredictRequest, field: str, reason: str) -> None:
    async with front_end(max_image_bytes=100) as front:
        error = await refusal(front, request_)
        status = status_of(error)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        [violation] = detail(status, error_details_pb2.BadRequest).field_violations
        assert violation.field == field
        assert detail(status, error_details_pb2.ErrorInfo).reason == reason
        assert front.relay.submitted == []


async def test_the_longest_quotation_fits_into_the_metadata(front: FrontEnd) -> None:
    error = await refusal(front, pb.PredictRequest(image=b"x", model="\N{CAT}" * 100_000))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert detail(status_of(error), error_details_pb2.ResourceInfo).resource_name


async def test_a_message_far_above_the_limit_is_refused_by_the_transport() -> None:
    async with front_end(max_image_bytes=100) as front:
        error = await refusal(front, pb.PredictRequest(image=b"x" * 3_000_000))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_image_of_exactly_the_limit_is_accepted() -> None:
    async with front_end(max_image_bytes=5_000_000) as front:
        await front.stub.Predict(pb.PredictRequest(image=b"x" * 5_000_000), timeout=LIMIT_S)
        assert len(front.relay.submitted[0].image) == 5_000_000


@pytest.mark.parametrize("error", [KeyError("secret"), errors.OutcomeUnknown("secret")])
async def test_what_nobody_expected_is_hidden_from_the_caller(
    front: FrontEnd, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    front.relay.failures[b"bad"] = error
    seen = await refusal(front, pb.PredictRequest(image=b"bad"))
    assert seen.code() is grpc.StatusCode.INTERNAL
    assert seen.details() == "internal error"
    assert detail(status_of(seen), error_details_pb2.ErrorInfo).reason == "INTERNAL"
    assert b"secret" not in status_of(seen).SerializeToString()
    assert "secret" in capsys.readouterr().out


async def test_a_cancellation_of_our_own_does_not_leave_the_caller_waiting(
    front: FrontEnd,
) -> None:
    front.relay.failures[b"bad"] = asyncio.CancelledError("ours")
    seen = await refusal(front, pb.PredictRequest(image=b"bad"))
    assert seen.code() is grpc.StatusCode.INTERNAL
    assert seen.details() == "internal error"


async def test_bytes_that_are_no_message_are_the_callers_fault(front: FrontEnd) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary(
        "/prediction.v1.PredictionService/Predict"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = detail(status_of(caught.value), error_details_pb2.ErrorInfo)
    assert info.reason == "INVALID_ARGUMENT"


async def test_a_caller_who_goes_away_cancels_the_job(front: FrontEnd) -> None:
    call = front.stub.Predict(pb.PredictRequest(image=b"hold"))
    await front.relay.notice.until(lambda: len(front.relay.submitted) == 1)
    call.cancel()
    await front.relay.notice.until(lambda: front.relay.cancelled == [b"hold"])


async def test_a_deadline_that_passes_cancels_the_job(front: FrontEnd) -> None:
    error = None
    try:
        await front.stub.Predict(pb.PredictRequest(image=b"hold"), timeout=0.05)
    except grpc.aio.AioRpcError as caught:
        error = caught
    assert error is not None
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await front.relay.notice.until(lambda: front.relay.cancelled == [b"hold"])


async def test_a_client_with_a_retry_policy_obeys_the_pushback_and_succeeds() -> None:
    policy = {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    # Longer than the test may take: only the pushback can be in time.
                    "initialBackoff": "100s",
                    "maxBackoff": "100s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
    async with front_end(channel_options=(("grpc.service_config", json.dumps(policy)),)) as front:
        front.relay.failures[b"cat"] = errors.QueueFull("jobs", "full", retry_after_s=0.01)
        call = front.stub.Predict(pb.PredictRequest(image=b"cat"), timeout=LIMIT_S)
        await front.relay.notice.until(lambda: len(front.relay.submitted) >= 1)
        front.relay.failures.clear()
        assert (await call).model == MODEL


async def test_list_models_describes_them_without_labels(front: FrontEnd) -> None:
    response = await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    [model] = response.models
    assert (model.name, model.version, model.engine) == (MODEL, "1.0", "tensorflow")
    assert (model.class_count, list(model.labels)) == (2, [])
    assert (model.input_width, model.input_height, model.max_batch_size) == (224, 224, 16)
    assert (model.live_workers, list(model.live_versions)) == (1, ["1.0"])
    assert model.state == pb.MODEL_STATE_READY
    assert model.queue_depth == 30
    assert model.estimated_wait.ToMilliseconds() == 1500


async def test_get_model_has_the_labels(front: FrontEnd) -> None:
    response = await front.stub.GetModel(pb.GetModelRequest(), timeout=LIMIT_S)
    assert list(response.model.labels) == ["dog", "cat"]


async def test_models_are_not_told_while_nobody_knows_them(front: FrontEnd) -> None:
    front.fleet.connect(is_connected=False)
    for call in (
        front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S),
        front.stub.GetModel(pb.GetModelRequest(name=MODEL), timeout=LIMIT_S),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        info = detail(status_of(caught.value), error_details_pb2.ErrorInfo)
        assert info.reason == "BROKER_UNAVAILABLE"


async def test_get_model_of_an_unknown_name_is_not_found(front: FrontEnd) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.stub.GetModel(pb.GetModelRequest(name="none"), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_state_of_a_model_follows_its_workers(front: FrontEnd) -> None:
    async def state() -> pb.ModelState.ValueType:
        response = await front.stub.GetModel(pb.GetModelRequest(), timeout=LIMIT_S)
        return response.model.state

    front.fleet.set_workers(ready=0, loading=1)
    assert await state() == pb.MODEL_STATE_LOADING
    front.fleet.set_workers(ready=0)
    assert await state() == pb.MODEL_STATE_NO_WORKER


async def test_in_a_flood_calls_are_refused_without_their_images(front: FrontEnd) -> None:
    front.relay.flooded = errors.QueueFull("model:m/jobs", "full", retry_after_s=0.25)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        # Nothing of it is read, so nothing else can be wrong with it.
        await front.stub.Predict(pb.PredictRequest(top_k=-1), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    packed = status_of(caught.value).details
    assert [detail.TypeName().rpartition(".")[2] for detail in packed] == [
        "ErrorInfo",
        "RetryInfo",
        "QuotaFailure",
    ]
    assert not front.relay.submitted
    # Whatever else a caller may want is not concerned.
    await front.stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    front.relay.flooded = None
    assert await front.stub.Predict(pb.PredictRequest(image=b"cat"), timeout=LIMIT_S)
