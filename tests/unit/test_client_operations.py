"""The synchronous client over a real connection: submitting, waiting, dead letters."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]

from client import (
    Cancelled,
    Client,
    InternalError,
    InvalidImage,
    InvalidInput,
    NotFound,
    OperationState,
    Overloaded,
    Unavailable,
)
from client.operation_wire import operation, purge_requests
from prediction.v1 import prediction_pb2
from tests.fake_front_end import DRAINING, FULL, LIMIT_S, NO_WORKER, Refusal
from tests.fake_operations import FakeOperations, RestingClock


@pytest.fixture
def server() -> Iterator[FakeOperations]:
    with FakeOperations() as server:
        yield server


@pytest.fixture
def clock() -> RestingClock:
    return RestingClock()


@pytest.fixture
def client(server: FakeOperations, clock: RestingClock) -> Iterator[Client]:
    """Rests without sleeping."""
    with Client(server.target) as client:
        client._connection.patience = clock.patience
        client._connection.rest = clock.rest  # type: ignore[method-assign]
        yield client


def test_an_image_is_accepted_and_fetched(server: FakeOperations, client: Client) -> None:
    accepted = client.submit(b"cat", model="m", top_k=1, include_scores=True)
    assert (accepted.name, accepted.model) == ("models/m/operations/1", "m")
    assert (accepted.state, accepted.estimated_position) == (OperationState.QUEUED, 4)
    assert not accepted.is_done
    with pytest.raises(ValueError, match="queued"):
        accepted.unwrap()

    done = client.operation(accepted.name)
    assert done.is_done
    assert done.unwrap().labels[0].label == "cat"
    assert (len(done.unwrap().labels), len(done.unwrap().scores)) == (1, 4)
    assert (done.attempt, done.error) == (1, None)
    assert done.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert done.ended_at == datetime(2026, 1, 2, 3, 4, 7, tzinfo=UTC)
    assert done.expires_at == datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
    assert uuid.UUID(done.request_id).version == 4
    assert server.submitted[0].durability == prediction_pb2.DURABILITY_WRITTEN


def test_a_path_is_submitted_synced(server: FakeOperations, client: Client, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(b"dog")
    client.submit(tmp_path / "dog.jpg", synced=True)
    assert server.submitted[0].image == b"dog"
    assert server.submitted[0].durability == prediction_pb2.DURABILITY_SYNCED


def test_submitting_again_with_the_same_id_is_the_same_operation(client: Client) -> None:
    first = client.submit(b"cat", request_id="5c2ba0cb-8d0c-4a4f-8c4a-3a2fd0b9a111")
    again = client.submit(b"cat", request_id="5c2ba0cb-8d0c-4a4f-8c4a-3a2fd0b9a111")
    assert first.name == again.name
    with pytest.raises(InvalidInput) as caught:
        client.submit(b"dog", request_id="5c2ba0cb-8d0c-4a4f-8c4a-3a2fd0b9a111")
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_a_submission_is_repeated_with_the_same_id(server: FakeOperations, client: Client) -> None:
    server.refusals = [NO_WORKER, FULL]
    client.submit(b"cat")
    assert len(server.submitted) == 3
    assert len({request.request_id for request in server.submitted}) == 1


def test_an_operation_that_failed_has_the_error_of_a_prediction(client: Client) -> None:
    operation = client.wait(client.submit(b"bad").name)
    assert operation.is_done
    assert isinstance(operation.error, InvalidImage)
    assert operation.error.reason == "IMAGE_UNDECODABLE"
    assert operation.error.request_id == operation.request_id
    with pytest.raises(InvalidImage):
        operation.unwrap()


def test_overload_is_waited_out_at_random(
    server: FakeOperations, client: Client, clock: RestingClock
) -> None:
    server.refusals = [FULL] * 8
    assert client.predict(b"cat").labels[0].label == "cat"
    assert server.attempt_count == 9
    assert len(set(clock.pauses_s)) == 8
    assert min(clock.pauses_s) >= 2.5
    assert max(clock.pauses_s) <= 2.5 * 1.5


def test_overload_is_waited_out_as_long_as_there_is_time(
    server: FakeOperations, client: Client, clock: RestingClock
) -> None:
    server.refusals = [FULL] * 99
    with pytest.raises(Overloaded) as caught:
        client.submit(b"cat", timeout_s=10)
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 2.5)
    assert caught.value.request_id
    assert sum(clock.pauses_s) < 10
    assert server.attempt_count == len(clock.pauses_s) + 1 in {3, 4, 5}


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "without a hint"),
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "", "message larger than max (9 vs. 8)"),
    ],
)
def test_overload_without_a_hint_is_not_waited_out(
    server: FakeOperations, client: Client, refusal: Refusal
) -> None:
    server.refusals = [refusal]
    with pytest.raises((Overloaded, InvalidImage)):
        client.predict(b"cat")
    assert server.attempt_count == 1


def test_an_image_of_a_stream_is_not_sent_again(server: FakeOperations, client: Client) -> None:
    (outcome,) = client.predict_stream([("k", b"full")])
    assert isinstance(outcome.error, Overloaded)
    assert outcome.error.retry_after_s == 2.5
    assert server.attempt_count == 1


def test_waiting_ends_with_the_operation(server: FakeOperations, client: Client) -> None:
    name = client.submit(b"slow").name
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.wait, name, timeout_s=90)
        assert server.slow_arrived.wait(LIMIT_S)
        server.finish(name)
        assert future.result(LIMIT_S).unwrap().labels[0].label == "slow"
    ((asked_s, deadline_s),) = server.waits_s
    assert asked_s == 60
    assert asked_s < deadline_s < 70


def test_when_the_time_is_over_the_operation_is_returned_as_it_is(
    server: FakeOperations, client: Client, clock: RestingClock
) -> None:
    server.waits_at_all = False
    operation = client.wait(client.submit(b"slow").name, timeout_s=30)
    assert operation.state is OperationState.QUEUED
    assert sum(clock.pauses_s) == pytest.approx(30)
    assert len(server.waits_s) == len(clock.pauses_s) < 15


def test_without_time_an_operation_is_only_looked_at(
    server: FakeOperations, client: Client
) -> None:
    assert not client.wait(client.submit(b"slow").name, timeout_s=0).is_done
    assert server.waits_s == []


def test_waiting_survives_a_server_that_is_away(
    server: FakeOperations, client: Client, clock: RestingClock
) -> None:
    name = client.submit(b"cat").name
    server.refusals = [DRAINING] * 17  # more than gRPC's own attempts
    assert client.wait(name).is_done
    assert clock.pauses_s


def test_a_server_that_stays_away_is_an_error(server: FakeOperations, client: Client) -> None:
    name = client.submit(b"cat").name
    server.refusals = [DRAINING] * 999
    with pytest.raises(Unavailable):
        client.wait(name, timeout_s=1)


def test_an_unknown_operation_is_not_waited_for(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        client.wait("models/m/operations/none")
    assert caught.value.reason == "OPERATION_NOT_FOUND"


def test_all_pages_are_listed(server: FakeOperations, client: Client) -> None:
    names = [client.submit(b"cat", model=model).name for model in "aabab"]
    assert [operation.name for operation in client.operations()] == names
    in_b = [operation.name for operation in client.operations(model="b", page_size=1)]
    assert in_b == [names[2], names[4]]
    assert server.attempt_count == 5 + 3 + 2


def test_an_operation_is_cancelled_and_deleted(client: Client) -> None:
    name = client.submit(b"slow").name
    client.cancel(name)
    cancelled = client.operation(name)
    assert isinstance(cancelled.error, Cancelled)
    assert cancelled.error.reason == "OPERATION_CANCELLED"
    client.delete(name)
    with pytest.raises(NotFound):
        client.operation(name)


def test_closing_wakes_who_rests(server: FakeOperations) -> None:
    # With the real clock: the hint is 2.5 s, and nobody may wait that long.
    server.refusals = [FULL] * 99
    client = Client(server.target)
    resting = threading.Event()
    rest = client._connection.rest

    def noted_rest(pause_s: float) -> None:
        resting.set()
        rest(pause_s * 1000)

    client._connection.rest = noted_rest  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.predict, b"cat")
        assert resting.wait(LIMIT_S)
        client.close()
        with pytest.raises(Cancelled):
            future.result(LIMIT_S)


def test_closing_cancels_calls_in_progress(server: FakeOperations, client: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.predict, b"slow")
        assert server.slow_arrived.wait(LIMIT_S)
        client.close()
        with pytest.raises(Cancelled):
            future.result(LIMIT_S)


def test_dead_letters_are_listed_and_shown(server: FakeOperations, client: Client) -> None:
    names = [server.set_aside(image) for image in (b"one", b"two", b"three")]
    letters = list(client.admin.dead_letters())
    assert [letter.name for letter in letters] == names
    assert {letter.image for letter in letters} == {b""}
    letter = client.admin.dead_letter(names[2])
    assert (letter.image, letter.size_bytes, letter.deliveries) == (b"three", 5, 2)
    assert letter.reason == "JOB_POISONED"
    assert letter.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert "three" not in repr(letter)
    with pytest.raises(NotFound):
        client.admin.dead_letter("models/default/deadLetters/9-9")


def test_a_replayed_letter_is_an_operation(server: FakeOperations, client: Client) -> None:
    name = server.set_aside(b"cat")
    operation = client.admin.replay_dead_letter(name)
    assert client.wait(operation.name).unwrap().labels[0].label == "cat"
    assert list(client.admin.dead_letters()) == []


def test_a_replay_is_never_repeated(server: FakeOperations, client: Client) -> None:
    server.refusals = [NO_WORKER]
    with pytest.raises(Unavailable):
        client.admin.replay_dead_letter(server.set_aside(b"cat"))
    assert server.attempt_count == 1


def test_letters_are_purged_by_name_and_all(server: FakeOperations, client: Client) -> None:
    a, _, c = (server.set_aside(b"x", model) for model in ("m", "m", "n"))
    assert client.admin.purge_dead_letters() == 0
    assert client.admin.purge_dead_letters(names=[c, a, a]) == 2
    assert [purge.model for purge in server.purges] == ["m", "n"]
    assert client.admin.purge_dead_letters("m", all=True) == 1
    assert server.letters == {}


def test_many_names_are_purged_in_several_calls() -> None:
    names = [f"models/m/deadLetters/{number}" for number in range(2001)]
    assert [len(r.names) for r in purge_requests("", names, is_all=False)] == [1000, 1000, 1]


def test_a_model_is_forgotten(server: FakeOperations, client: Client) -> None:
    client.admin.forget_model("old")
    assert server.models == {"default", "busy"}
    with pytest.raises(InvalidInput, match="lives"):
        client.admin.forget_model("busy")


def test_what_a_newer_server_says_of_an_operation_is_tolerated() -> None:
    message = operations_pb2.Operation(name="models/m/operations/1")
    message.metadata.Pack(prediction_pb2.PredictionMetadata(state=99))  # type: ignore[arg-type]
    assert operation(message).state is OperationState.UNKNOWN
    message.metadata.Pack(prediction_pb2.Timing())
    assert (operation(message).model, operation(message).created_at) == ("m", None)
    message.done = True
    assert isinstance(operation(message).error, InternalError)
