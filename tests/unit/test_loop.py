"""One bad image fails alone; nobody computes for nobody."""

import itertools
import threading
import time

import numpy as np
import pytest
from prometheus_client import REGISTRY

from despacho.job.v1.job_pb2 import WorkerCard
from dispatch.jobs import Outcome, Priority
from telemetry.metrics import Unwanted
from tests.loop_house import BAD, NOT_A_NUMBER, House, Queue, item
from worker import outbox, quickness
from worker.batch_cost import BatchCost
from worker.batching import Prepared
from worker.engine import Float32Array, UInt8Array


def avoided(cause: Unwanted) -> float:
    labels = {"model": Queue.model, "stage": "inference", "cause": cause}
    return REGISTRY.get_sample_value("despacho_work_avoided_total", labels) or 0


def test_a_batch_is_answered_in_one_run() -> None:
    house = House()
    assert house.run(item(1), item(200)) == {1: Outcome.COMPLETED, 200: Outcome.COMPLETED}
    assert house.engine.batches == [[1, 200]]
    (_, first, _), (_, second, _) = house.publisher.ended
    assert first.answer.labels[0].name == "b"
    assert second.answer.labels[0].name == "a"
    assert second.answer.model_version == "7"
    assert second.answer.batch_size == 2
    assert len(second.answer.labels) == 1
    assert not second.answer.scores


def test_what_was_done_is_counted() -> None:
    house = House()
    house.run(item(1), item(200))
    card = WorkerCard()
    house.work_done.write_to(card)
    assert (card.images, card.batches) == (2, 1)
    assert card.inference_us > 0


@pytest.mark.parametrize("bad", [BAD, NOT_A_NUMBER])
def test_a_bad_image_fails_alone(bad: int) -> None:
    house = House()
    assert house.run(item(1), item(bad), item(2)) == {
        1: Outcome.COMPLETED,
        bad: Outcome.FAILED,
        2: Outcome.COMPLETED,
    }
    assert house.engine.batches == [[1, bad, 2], [1], [bad], [2]]


def test_an_expired_job_is_not_run() -> None:
    house, before = House(), avoided("expired")
    assert house.run(item(1, deadline_ms=999), item(2)) == {
        1: Outcome.EXPIRED,
        2: Outcome.COMPLETED,
    }
    assert house.engine.batches == [[2]]
    assert avoided("expired") == before + 1


def test_a_lost_job_is_neither_run_nor_answered() -> None:
    house, before = House(), avoided("cancelled")
    house.queue.lost = {"1-0"}
    assert house.run(item(1), item(2)) == {2: Outcome.COMPLETED}
    assert house.engine.batches == [[2]]
    assert avoided("cancelled") == before + 1
    assert len(house.in_hand) == 0


def test_a_job_that_others_retired_as_expired_counts_as_such() -> None:
    house, before = House(), avoided("expired")
    house.queue.lost = {"1-0"}
    assert house.run(item(1, deadline_ms=999)) == {}
    assert avoided("expired") == before + 1


def test_a_broker_that_is_away_does_not_stop_the_model() -> None:
    house = House()
    house.queue.is_away = True
    assert house.run(item(1)) == {1: Outcome.COMPLETED}


def test_before_each_batch_there_is_a_look_at_all_that_is_in_hand() -> None:
    house = House()
    house.cost = BatchCost(1)
    house.run(item(1), item(2), item(3))
    assert house.engine.batches == [[1], [2], [3]]
    assert house.queue.asked == [{"1-0", "2-0", "3-0"}, {"2-0", "3-0"}, {"3-0"}]


def test_answers_go_along_with_the_look_at_the_next_batch() -> None:
    house = House()
    house.cost = BatchCost(1)
    house.run(item(1), item(2), item(3))
    assert house.publisher.together == [(0, True), (1, True), (1, True), (1, False)]


def cost_of(size: int, seconds: float) -> BatchCost:
    """Batches of up to so many images, all of which take so long."""
    cost = BatchCost(size)
    ticks = itertools.count()
    cost.measure(lambda _: None, lambda: next(ticks) * seconds)
    return cost


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let answers wait as long as the test takes, and no model be so quick that none has to."""
    monkeypatch.setattr(outbox, "MOST_S", 1e6)
    monkeypatch.setattr(quickness, "HANDOVER_S", 0)


def long_queued(count: int) -> list[Prepared]:
    return [item(1 + number, deadline_ms=10**12, queue_us=10**12) for number in range(count)]


@pytest.mark.usefixtures("patient")
def test_answers_to_images_that_waited_longer_wait_for_the_next_ones() -> None:
    house = House()
    house.cost = cost_of(1, 0.001)
    assert len(house.run(*long_queued(10))) == 10
    assert house.publisher.together == [(0, True), (8, True), (2, False)]


def test_they_do_not_where_the_next_batch_takes_too_long() -> None:
    house = House()
    house.cost = cost_of(1, 1000)
    house.run(*long_queued(3))
    assert house.publisher.together == [(0, True), (1, True), (1, True), (1, False)]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("deadline_ms", "queue_us"), [(10**12, 0), (1001, 10**12)])
def test_one_in_a_hurry_is_answered_before_the_next_batch_with_all_of_its_own(
    deadline_ms: int, queue_us: int
) -> None:
    house = House()
    house.cost = cost_of(2, 1.0)
    first, second, third, fourth = long_queued(4)
    hurried = item(99, deadline_ms=deadline_ms, queue_us=queue_us)
    house.run(first, second, hurried, third, fourth)
    assert house.engine.batches == [[1, 2], [99, 3], [4]]
    assert house.publisher.together == [(0, True), (4, True), (1, False)]


@pytest.mark.usefixtures("patient")
def test_what_waits_for_a_batch_that_takes_too_long_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House()
    house.cost = cost_of(1, 0.001)
    ready, loop = house.parts()
    house.put(ready, *long_queued(3))
    ready.close()
    predict = house.engine.predict

    def slow(images: UInt8Array) -> Float32Array:
        if len(house.engine.batches) == 2:
            loop.relieve()
            loop.relieve()
        return predict(images)

    monkeypatch.setattr(house.engine, "predict", slow)
    loop.run()
    assert house.publisher.together == [(0, True), (2, False), (1, False)]


@pytest.mark.usefixtures("patient")
def test_others_find_room_beside_answers_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    house.cost = cost_of(1, 0.001)
    predict, rooms = house.engine.predict, []

    def seen(images: UInt8Array) -> Float32Array:
        rooms.append(house.in_hand.wait_for_call_room(0).jobs)
        return predict(images)

    monkeypatch.setattr(house.engine, "predict", seen)
    house.run(*long_queued(3))
    assert rooms == [97, 98, 99]


def test_answers_do_not_wait_for_operations() -> None:
    house = House()
    house.cost = BatchCost(1)
    house.run(item(1), item(2, priority=Priority.OPERATION))
    assert house.publisher.together == [(0, True), (1, False), (0, True), (1, False)]


def test_a_single_image_is_not_copied_and_others_share_their_memory() -> None:
    house = House()
    alone = item(7)
    house.run(alone)
    assert np.shares_memory(house.engine.images[0], alone.pixels)
    house.cost = BatchCost(2)
    house.run(item(1), item(2), item(3), item(4))
    assert house.engine.batches == [[7], [1, 2], [3, 4]]
    assert np.shares_memory(house.engine.images[1], house.engine.images[2])


def test_a_model_that_takes_no_time_is_run_without_asking_and_waits_for_redis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quickness, "HANDOVER_S", 1e6)
    house = House()
    house.cost = BatchCost(1)
    house.run(*(item(100 + number) for number in range(40)))
    assert len(house.publisher.ended) == 40
    assert 0 < len(house.queue.asked) < 40
    assert len(house.publisher.waited_for) == 41 - len(house.queue.asked)


def test_what_takes_no_time_is_run_by_whoever_submits_it_and_operations_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quickness, "HANDOVER_S", 1e6)
    house = House()
    house.cost = BatchCost(1)
    ready, loop = house.parts()
    house.put(ready, item(1))
    loop.run_ready()
    assert house.outcomes() == {}  # nobody knows yet how long it takes
    house.put(ready, *(item(10 + number) for number in range(40)))
    ready.close()
    loop.run()
    house.put(ready, item(2), item(3, priority=Priority.OPERATION), item(4))
    loop.run_ready()
    assert set(house.outcomes()) == {1, *range(10, 50), 2, 4}
    loop.run()
    assert set(house.outcomes()) == {1, *range(10, 50), 2, 3, 4}


def test_what_began_to_take_time_is_left_for_the_thread_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quickness, "HANDOVER_S", 1e6)
    house = House()
    house.cost = BatchCost(1)
    ready, loop = house.parts()
    house.put(ready, *(item(10 + number) for number in range(40)))
    ready.close()
    loop.run()
    predict = house.engine.predict

    def slow(images: UInt8Array) -> Float32Array:
        monkeypatch.setattr(quickness, "HANDOVER_S", 0)
        return predict(images)

    monkeypatch.setattr(house.engine, "predict", slow)
    house.put(ready, item(1), item(2))
    loop.run_ready()
    assert house.engine.batches[-1] == [1]
    loop.run()
    assert house.engine.batches[-1] == [2]


def test_who_sleeps_is_woken_for_what_the_submitter_leaves() -> None:
    house = House()
    ready, loop = house.parts()
    thread = threading.Thread(target=loop.run)
    thread.start()
    thread.join(0.1)  # it waits for the first image
    left = item(1)
    house.in_hand.add([left.claim])
    ready.expect(left.claim)
    ready.put([left], quietly=True)
    loop.run_ready()
    gives_up_at = time.monotonic() + 10
    while not house.outcomes() and time.monotonic() < gives_up_at:
        thread.join(0.01)
    answered = house.outcomes()
    ready.close()
    thread.join()
    assert answered == {1: Outcome.COMPLETED}


@pytest.mark.parametrize("classes", [1, 7])
def test_scores_of_other_classes_than_the_model_has_are_a_failure(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House()

    def predict(images: UInt8Array) -> Float32Array:
        return np.zeros((len(images), classes), np.float32)

    monkeypatch.setattr(house.engine, "predict", predict)
    assert house.run(item(1), item(2)) == {1: Outcome.FAILED, 2: Outcome.FAILED}


def test_a_model_that_has_answered_or_raised_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    ready, loop = house.parts()
    predict = house.engine.predict

    def noted(images: UInt8Array) -> Float32Array:
        assert loop.running_for_s() > 0
        if len(house.publisher.ended) == 1:
            raise ValueError("no")
        return predict(images)

    monkeypatch.setattr(house.engine, "predict", noted)
    for number, outcome in enumerate((Outcome.COMPLETED, Outcome.FAILED)):
        house.put(ready, item(number))
        ready.close()
        loop.run()
        assert house.outcomes()[number] is outcome
        assert loop.running_for_s() == 0
