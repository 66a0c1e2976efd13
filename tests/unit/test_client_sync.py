"""The synchronous client, against grpcio-testing: each test plays the server."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc_testing
import pytest
from grpc_health.v1 import health_pb2

from client import (
    Client,
    DespachoError,
    Health,
    InternalError,
    InvalidImage,
    Label,
    ModelState,
    NotFound,
    Overloaded,
    Priority,
    Unreachable,
)
from prediction.v1 import prediction_pb2
from tests.fake_front_end import BAD, FULL, LIMIT_S, MODEL, NO_MODEL, Refusal, answer

T = TypeVar("T")

SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
OK = grpc.StatusCode.OK


@pytest.fixture
def channel() -> Any:
    return grpc_testing.channel([SERVICE, HEALTH], grpc_testing.strict_real_time())


@pytest.fixture
def client(channel: Any) -> Client:
    return Client(over=channel)


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], T]], "Future[T]"]]:
    """Runs the client, which blocks, while the test plays the server."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def take(channel: Any, method: str, service: Any = SERVICE) -> tuple[Any, Any]:
    """The next unary request, and the call to answer."""
    _, request, call = channel.take_unary_unary(service.methods_by_name[method])
    return request, call


def refuse(call: Any, refusal: Refusal) -> None:
    call.terminate(None, refusal.trailers, refusal.code, refusal.status.message)


def test_a_prediction_becomes_a_typed_result(channel: Any, client: Client, background: Any) -> None:
    future = background(
        lambda: client.predict(
            b"cat", model="m", priority=Priority.HIGH, include_scores=True, request_id="r-1"
        )
    )
    request, call = take(channel, "Predict")
    call.terminate(answer(request), (), OK, "")
    result = future.result(LIMIT_S)

    assert (request.image, request.model, request.top_k) == (b"cat", "m", 5)
    assert request.priority == prediction_pb2.PRIORITY_HIGH
    assert result.labels == (Label("cat", 3, 0.75), Label("other", 1, 0.25))
    assert (result.model, result.model_version, result.worker) == ("m", "7", "worker-1")
    assert (result.timing.queue_s, result.timing.total_s) == (0.002, 1.5)
    assert (result.request_id, result.scores) == ("r-1", (0, 0.25, 0, 0.75))


def test_a_path_is_read(channel: Any, client: Client, background: Any, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(b"dog")
    future = background(lambda: client.predict(tmp_path / "dog.jpg"))
    request, call = take(channel, "Predict")
    call.terminate(answer(request), (), OK, "")

    assert request.image == b"dog"
    assert future.result(LIMIT_S).labels[0].label == "dog"


def test_details_of_an_error_become_attributes(
    channel: Any, client: Client, background: Any
) -> None:
    future = background(lambda: client.predict(b"full", timeout_s=2))
    request, call = take(channel, "Predict")
    refuse(call, FULL)

    with pytest.raises(Overloaded, match="the queue is full") as caught:
        future.result(LIMIT_S)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 2.5)
    assert caught.value.request_id == request.request_id != ""


def test_a_bad_image_names_its_field(channel: Any, client: Client, background: Any) -> None:
    future = background(lambda: client.predict(b"bad"))
    refuse(take(channel, "Predict")[1], BAD)

    with pytest.raises(InvalidImage) as caught:
        future.result(LIMIT_S)
    assert caught.value.field == "image"


def test_unavailable_without_details_is_unreachable(
    channel: Any, client: Client, background: Any
) -> None:
    future = background(lambda: client.predict(b"cat"))
    take(channel, "Predict")[1].terminate(None, (), grpc.StatusCode.UNAVAILABLE, "refused")

    with pytest.raises(Unreachable):
        future.result(LIMIT_S)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "IMAGE_EMPTY"),
        (b"12345", "IMAGE_TOO_LARGE"),
        (Path("no.jpg"), "IMAGE_UNREADABLE"),
        (Path("no\0.jpg"), "IMAGE_UNREADABLE"),
        (Path("no\ud800.jpg"), "IMAGE_UNREADABLE"),
    ],
)
def test_what_cannot_be_sent_is_refused_without_a_call(
    channel: Any, image: bytes | Path, reason: str
) -> None:
    with pytest.raises(InvalidImage) as caught:
        Client(over=channel, max_image_bytes=4).predict(image)
    assert caught.value.reason == reason


def test_a_string_is_not_taken_for_a_path(client: Client) -> None:
    with pytest.raises(TypeError, match="pathlib"):
        client.predict("cat.jpg")  # type: ignore[arg-type]


def test_models_are_described(channel: Any, client: Client, background: Any) -> None:
    future = background(client.models)
    call = take(channel, "ListModels")[1]
    call.terminate(prediction_pb2.ListModelsResponse(models=[MODEL]), (), OK, "")

    (model,) = future.result(LIMIT_S)
    assert (model.name, model.labels, model.input_width) == (
        "default",
        ("a", "other", "b", "c"),
        224,
    )
    assert (model.state, model.estimated_wait_s) == (ModelState.READY, 0.5)


def test_an_unmeasured_wait_is_none(channel: Any, client: Client, background: Any) -> None:
    future = background(lambda: client.model("m"))
    request, call = take(channel, "GetModel")
    unmeasured = prediction_pb2.Model(name="m")
    call.terminate(prediction_pb2.GetModelResponse(model=unmeasured), (), OK, "")

    assert request.name == "m"
    assert future.result(LIMIT_S).estimated_wait_s is None
    assert future.result(LIMIT_S).state is ModelState.UNKNOWN


def test_an_unknown_model_is_not_found(channel: Any, client: Client, background: Any) -> None:
    future = background(lambda: client.model("nope"))
    refuse(take(channel, "GetModel")[1], NO_MODEL)

    with pytest.raises(NotFound):
        future.result(LIMIT_S)


def test_health_is_asked_by_service(channel: Any, client: Client, background: Any) -> None:
    future = background(lambda: client.health("readiness"))
    request, call = take(channel, "Check", HEALTH)
    status = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
    call.terminate(status, (), OK, "")

    assert request.service == "readiness"
    assert future.result(LIMIT_S) is Health.NOT_SERVING


def stream_call(channel: Any) -> Any:
    return channel.take_stream_stream(SERVICE.methods_by_name["PredictStream"])[1]


def answered(item: prediction_pb2.PredictStreamRequest) -> prediction_pb2.PredictStreamResponse:
    return prediction_pb2.PredictStreamResponse(
        request_id=item.request.request_id, response=answer(item.request)
    )


def test_answers_of_a_stream_find_their_keys_in_any_order(
    channel: Any, client: Client, background: Any
) -> None:
    images = {"first": b"cat", "second": b"dog"}
    future = background(lambda: list(client.predict_stream(images.items())))
    call = stream_call(channel)
    cat, dog = call.take_request(), call.take_request()
    call.requests_closed()
    call.send_response(answered(dog))
    call.send_response(
        prediction_pb2.PredictStreamResponse(request_id=cat.request.request_id, failure=BAD.status)
    )
    call.terminate((), OK, "")

    second, first = future.result(LIMIT_S)
    assert (second.key, second.unwrap().labels[0].label) == ("second", "dog")
    assert first.key == "first"
    with pytest.raises(InvalidImage):
        first.unwrap()


def test_a_broken_stream_names_the_unanswered(
    channel: Any, client: Client, background: Any
) -> None:
    outcomes = client.predict_stream(enumerate([b"a", b"b", b"c"]))
    first = background(lambda: next(outcomes))
    call = stream_call(channel)
    requests = [call.take_request() for _ in range(3)]
    call.requests_closed()
    call.send_response(answered(requests[1]))
    assert first.result(LIMIT_S).key == 1
    call.terminate((), grpc.StatusCode.UNAVAILABLE, "gone")

    with pytest.raises(Unreachable) as caught:
        next(outcomes)
    assert caught.value.unanswered == (0, 2)


def test_an_answer_nobody_asked_for_is_the_servers_fault(
    channel: Any, client: Client, background: Any
) -> None:
    future = background(lambda: list(client.predict_stream([("k", b"cat")])))
    call = stream_call(channel)
    call.take_request()
    call.send_response(prediction_pb2.PredictStreamResponse(request_id="other"))

    with pytest.raises(InternalError, match="unknown request"):
        future.result(LIMIT_S)


def test_a_stream_that_ends_early_is_an_error(
    channel: Any, client: Client, background: Any
) -> None:
    future = background(lambda: list(client.predict_stream([("k", b"cat")])))
    call = stream_call(channel)
    call.take_request()
    call.requests_closed()
    call.terminate((), OK, "")

    with pytest.raises(DespachoError, match="before it had answered") as caught:
        future.result(LIMIT_S)
    assert caught.value.unanswered == ("k",)
