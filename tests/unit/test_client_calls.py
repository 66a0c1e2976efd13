"""The synchronous client over a real connection: retries, backpressure, cancelling."""

import gc
import itertools
import math
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from client import (
    Client,
    DeadlineExceeded,
    Image,
    InvalidImage,
    NotFound,
    Unavailable,
    Unreachable,
)
from tests.every_way import impatient
from tests.fake_front_end import LIMIT_S, LOADING, NO_WORKER, FakeFrontEnd

LARGE = b"large " + bytes(1024 * 1024)
"""More than gRPC keeps for a retry by default."""


@pytest.fixture
def server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as server:
        yield server


@pytest.fixture
def client(server: FakeFrontEnd) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def test_a_large_image_is_retried_when_the_server_says_so(
    server: FakeFrontEnd, client: Client
) -> None:
    server.refusals_left = 2
    assert client.predict(LARGE).labels[0].label == "large"
    assert server.attempt_count == 3


@pytest.mark.parametrize("timeout_s", [1e10, math.inf])
def test_a_call_may_last_for_ever(client: Client, timeout_s: float) -> None:
    assert client.predict(b"cat", timeout_s=timeout_s).labels[0].label == "cat"
    assert client.predict_upload([b"cat"], timeout_s=timeout_s).labels[0].label == "cat"
    (outcome,) = client.predict_stream([("k", b"cat")], timeout_s=timeout_s)
    assert outcome.unwrap().labels[0].label == "cat"


def test_the_image_of_a_failed_call_is_kept_no_longer_than_the_error(client: Client) -> None:
    calls: list[weakref.ref[BaseException]] = []

    def fail() -> None:
        try:
            client.predict(b"bad")
        except InvalidImage as error:
            # The call itself: it and the frames that hold the request held each other.
            calls.append(weakref.ref(cast("BaseException", error.__cause__)))

    gc.disable()  # collections are seldom, and images large
    try:
        fail()
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        assert [call() for call in calls] == [None, None]
    finally:
        gc.enable()


def test_retries_of_grpc_are_followed_by_those_of_the_client(
    server: FakeFrontEnd, client: Client
) -> None:
    server.refusals_left = 5
    assert client.predict(b"cat").labels[0].label == "cat"
    assert server.attempt_count == 6


def test_retries_end(server: FakeFrontEnd, client: Client) -> None:
    server.refusals_left = 99
    client._connection.patience = impatient
    with pytest.raises(Unavailable) as caught:
        client.predict(b"cat")
    assert not isinstance(caught.value, Unreachable)
    assert (caught.value.reason, caught.value.retry_after_s) == ("NO_WORKER", 0.01)
    assert server.attempt_count == 5


def test_the_end_of_the_time_says_why_the_attempts_before_failed(
    server: FakeFrontEnd, client: Client
) -> None:
    # After five attempts the client rests; then gRPC would rest for longer than there is time.
    server.refusals = [NO_WORKER] * 5 + [LOADING]
    with pytest.raises(DeadlineExceeded, match="no worker is alive") as caught:
        client.predict(b"cat", timeout_s=4)
    assert (caught.value.reason, caught.value.retry_after_s) == ("NO_WORKER", 0.01)


def test_whoever_was_answered_in_any_way_waits_for_the_server(
    server: FakeFrontEnd, client: Client
) -> None:
    with pytest.raises(InvalidImage):
        client.predict(b"bad")
    assert client._connection._was_reached
    with Client(server.target) as other:
        list(other.predict_stream([("k", b"cat")]))
        assert other._connection._was_reached


def test_other_calls_are_retried_by_grpc_alone(server: FakeFrontEnd, client: Client) -> None:
    server.refusals_left = 99
    with pytest.raises(Unavailable):
        list(client.predict_stream([("k", b"cat")]))
    assert server.attempt_count == 5


def test_a_stream_is_retried_before_its_first_answer(server: FakeFrontEnd, client: Client) -> None:
    server.refusals_left = 1
    (outcome,) = client.predict_stream([("k", LARGE)])
    assert outcome.unwrap().labels[0].label == "large"
    assert server.attempt_count == 2


def test_no_answer_in_time_ends_the_call_on_the_server_too(
    server: FakeFrontEnd, client: Client
) -> None:
    with pytest.raises(DeadlineExceeded):
        client.predict(b"slow", timeout_s=0.3)
    assert server.call_ended.wait(LIMIT_S)


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path}/nobody") as client, pytest.raises(Unreachable):
        client.health()


def test_one_bad_image_does_not_end_the_stream(client: Client) -> None:
    images: list[Image] = [b"cat", b"bad", Path("missing.jpg"), b"dog"]
    outcomes = {outcome.key: outcome for outcome in client.predict_stream(enumerate(images))}

    assert outcomes.keys() == {0, 1, 2, 3}
    assert outcomes[0].unwrap().labels[0].label == "cat"
    assert outcomes[3].unwrap().labels[0].label == "dog"
    for key, reason in {1: "IMAGE_UNDECODABLE", 2: "IMAGE_UNREADABLE"}.items():
        error = outcomes[key].error
        assert isinstance(error, InvalidImage)
        assert error.reason == reason


def test_the_options_of_a_stream_go_with_each_image(client: Client) -> None:
    (outcome,) = client.predict_stream([("k", b"cat")], model="m", top_k=1, include_scores=True)
    result = outcome.unwrap()
    assert (result.model, len(result.labels), len(result.scores)) == ("m", 1, 4)


def test_an_unknown_model_fails_each_image(client: Client) -> None:
    (outcome,) = client.predict_stream([("k", b"cat")], model="nope")
    assert isinstance(outcome.error, NotFound)


def test_a_broken_stream_still_reports_what_was_never_sent(client: Client) -> None:
    outcomes = client.predict_stream([("gone", Path("missing.jpg")), ("k", b"break")])
    assert next(outcomes).key == "gone"
    with pytest.raises(Unavailable) as caught:
        next(outcomes)
    assert (caught.value.reason, caught.value.unanswered) == ("DRAINING", ("k",))


def test_the_input_is_read_no_faster_than_the_server(server: FakeFrontEnd, client: Client) -> None:
    taken = itertools.count()
    last = 0
    many_taken = threading.Event()

    def images() -> Iterator[tuple[int, bytes]]:
        nonlocal last
        for last in taken:
            if last == 200:
                many_taken.set()
            yield last, LARGE

    server.may_read.clear()
    outcomes = client.predict_stream(images())
    reader = threading.Thread(target=lambda: next(outcomes))
    reader.start()
    # Not a pause to get something done: the event must *not* come.
    assert not many_taken.wait(0.5)
    server.may_read.set()
    reader.join(LIMIT_S)
    outcomes.close()
    assert last < 200


def test_leaving_the_loop_cancels_the_call(server: FakeFrontEnd, client: Client) -> None:
    for outcome in client.predict_stream(zip(itertools.count(), itertools.repeat(b"cat"))):
        assert outcome.result is not None
        break
    assert server.call_ended.wait(LIMIT_S)


def test_what_the_input_raises_comes_after_the_answers(client: Client) -> None:
    def images() -> Iterator[tuple[str, bytes]]:
        yield "k", b"cat"
        raise ZeroDivisionError

    outcomes = client.predict_stream(images())
    assert next(outcomes).key == "k"
    with pytest.raises(ZeroDivisionError):
        next(outcomes)


def test_a_long_stream_goes_on_over_fresh_calls(
    server: FakeFrontEnd, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The time to take images is over as soon as one was taken.
    monkeypatch.setattr("client.sync_client.FEEDING_SHARE", 0)
    outcomes = client.predict_stream(enumerate([b"cat"] * 3))
    assert [outcome.key for outcome in outcomes] == [0, 1, 2]
    assert server.stream_count == 3


def test_an_empty_stream_is_over_at_once(client: Client) -> None:
    assert list(client.predict_stream([])) == []


def test_health_of_the_process_and_of_an_unknown_service(client: Client) -> None:
    assert client.health().value == "serving"
    assert client.health("readiness").value == "not_serving"
    with pytest.raises(NotFound):
        client.health("nothing")
