"""How decoded images become batches."""

import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from despacho.job.v1.job_pb2 import Job
from dispatch.jobs import Claim, Priority
from worker import batching
from worker.batching import HOLDS_IN_A_ROW, Prepared, ReadyQueue
from worker.politeness import Politeness

LIMIT_S = 5.0
HIGH, NORMAL, LOW, OPERATION = Priority


def claim(number: int = 0, priority: Priority = NORMAL) -> Claim:
    return Claim(Job(), b"", priority, f"{number}-0", 1, 0, 0)


def prepared(number: int = 0, priority: Priority = NORMAL) -> Prepared:
    return Prepared(claim(number, priority), np.zeros((1, 1, 3), np.uint8), 0, 0)


def numbers(batch: list[Prepared] | None) -> list[int]:
    assert batch is not None
    return [int(item.claim.entry_id.removesuffix("-0")) for item in batch]


def put(ready: ReadyQueue, *numbers: int, priority: Priority = NORMAL) -> None:
    for number in numbers:
        item = prepared(number, priority)
        ready.expect(item.claim)
        ready.put(item)


class Clock:
    """Goes on by a step whenever it is asked; a hold asks it when it begins."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now_s = 0.0
        self._is_asked = threading.Event()

    def __call__(self) -> float:
        self._is_asked.set()
        self._now_s += self._step_s
        return self._now_s

    def when_next_asked(self, action: Callable[[], None]) -> threading.Thread:
        self._is_asked.clear()

        def wait_and_act() -> None:
            assert self._is_asked.wait(LIMIT_S)
            action()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        return thread


class NeverPolite(Politeness):
    """Does not know that calls are about: a rule of its own, tested elsewhere."""

    def call_came(self) -> None:
        """Forget it."""


def ready_queue(
    max_batch_size: int, *, max_wait_s: float, clock: Callable[[], float] = time.monotonic
) -> ReadyQueue:
    return ReadyQueue(
        max_batch_size=max_batch_size,
        max_wait_s=max_wait_s,
        politeness=NeverPolite(max_batch_size),
        clock=clock,
    )


def queue_with(clock: Clock, *, max_batch_size: int = 8) -> ReadyQueue:
    return ready_queue(max_batch_size, max_wait_s=0, clock=clock)


def test_a_batch_is_what_is_there() -> None:
    ready = ready_queue(8, max_wait_s=LIMIT_S)
    put(ready, 1, 2, 3)
    assert numbers(ready.next_batch()) == [1, 2, 3]


def test_a_batch_is_never_larger_than_the_limit() -> None:
    ready = ready_queue(2, max_wait_s=LIMIT_S)
    put(ready, 1, 2, 3)
    assert numbers(ready.next_batch()) == [1, 2]
    assert numbers(ready.next_batch()) == [3]


@pytest.mark.parametrize("priority", [NORMAL, OPERATION])
def test_a_batch_waits_for_images_that_are_being_decoded(priority: Priority) -> None:
    ready = ready_queue(8, max_wait_s=LIMIT_S)
    put(ready, 1, priority=priority)
    ready.expect(claim(2, priority))
    late = threading.Thread(target=ready.put, args=[prepared(2, priority)])
    late.start()
    assert numbers(ready.next_batch()) == [1, 2]
    late.join()


@pytest.mark.parametrize("priority", [NORMAL, OPERATION])
def test_a_batch_does_not_wait_for_an_image_that_does_not_come(priority: Priority) -> None:
    ready = ready_queue(8, max_wait_s=60)
    put(ready, 1)
    ready.expect(claim(2, priority))
    late = threading.Thread(target=ready.give_up, args=[claim(2, priority)])
    late.start()
    assert numbers(ready.next_batch()) == [1]
    late.join()


def test_a_batch_waits_no_longer_than_it_may() -> None:
    ready = ready_queue(8, max_wait_s=0.001)
    put(ready, 1)
    ready.expect(claim(2))
    assert numbers(ready.next_batch()) == [1]


def test_the_higher_priority_goes_first() -> None:
    ready = ready_queue(3, max_wait_s=LIMIT_S)
    put(ready, 1, 2, priority=LOW)
    put(ready, 3, 4, priority=NORMAL)
    put(ready, 5, priority=HIGH)
    assert numbers(ready.next_batch()) == [5, 3, 4]
    assert numbers(ready.next_batch()) == [1, 2]


@pytest.mark.parametrize("priority", [HIGH, NORMAL, LOW])
def test_a_batch_of_calls_is_not_filled_up_with_operations(priority: Priority) -> None:
    ready = ready_queue(8, max_wait_s=LIMIT_S)
    put(ready, 1, 2, priority=OPERATION)
    put(ready, 3, priority=priority)
    assert numbers(ready.next_batch()) == [3]
    assert numbers(ready.next_batch()) == [1, 2]


def test_a_batch_of_calls_does_not_wait_for_operations() -> None:
    ready = ready_queue(8, max_wait_s=60)
    put(ready, 1)
    ready.expect(claim(2, OPERATION))
    assert numbers(ready.next_batch()) == [1]


def test_operations_wait_for_a_call_that_is_being_decoded() -> None:
    ready = ready_queue(2, max_wait_s=LIMIT_S)
    put(ready, 1, 2, priority=OPERATION)
    ready.expect(claim(3))
    late = threading.Thread(target=ready.put, args=[prepared(3)])
    late.start()
    assert numbers(ready.next_batch()) == [3]
    late.join()


def test_operations_wait_no_longer_than_a_batch_may() -> None:
    ready = ready_queue(2, max_wait_s=0.001)
    put(ready, 1, 2, priority=OPERATION)
    ready.expect(claim(3))
    assert numbers(ready.next_batch()) == [1, 2]


def test_after_a_call_operations_are_held_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "HOLD_MAX_S", LIMIT_S)
    clock = Clock(60)
    ready = queue_with(clock)
    put(ready, 1)
    put(ready, 2, priority=OPERATION)
    assert numbers(ready.next_batch()) == [1]
    late = clock.when_next_asked(partial(put, ready, 3))
    assert numbers(ready.next_batch()) == [3]
    late.join()


@pytest.mark.parametrize(("took_s", "most_s"), [(0.001, 60), (60, 0.001)])
def test_operations_are_held_as_long_as_the_batch_before_took_and_no_longer_than_they_may(
    monkeypatch: pytest.MonkeyPatch, took_s: float, most_s: float
) -> None:
    monkeypatch.setattr(batching, "HOLD_MAX_S", most_s)
    ready = queue_with(Clock(took_s))
    put(ready, 1)
    put(ready, 2, priority=OPERATION)
    assert numbers(ready.next_batch()) == [1]
    assert numbers(ready.next_batch()) == [2]


def test_operations_are_held_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "HOLD_MAX_S", 60)
    clock = Clock(60)
    ready = queue_with(clock, max_batch_size=1)
    put(ready, 100, 101, priority=OPERATION)
    put(ready, 0)
    batches = [ready.next_batch()]
    for number in range(1, HOLDS_IN_A_ROW + 1):
        late = clock.when_next_asked(partial(put, ready, number))
        batches.append(ready.next_batch())
        late.join()
    batches.append(ready.next_batch())
    assert [numbers(batch) for batch in batches] == [[0], [1], [2], [3], [100]]


def test_operations_are_held_again_when_they_had_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "HOLD_MAX_S", 0.001)
    clock = Clock(60)
    ready = queue_with(clock, max_batch_size=1)
    for _ in range(HOLDS_IN_A_ROW):
        put(ready, 1)
        put(ready, 2, priority=OPERATION)
        assert numbers(ready.next_batch()) == [1]
        assert numbers(ready.next_batch()) == [2]
    put(ready, 1)
    put(ready, 2, priority=OPERATION)
    assert numbers(ready.next_batch()) == [1]
    monkeypatch.setattr(batching, "HOLD_MAX_S", LIMIT_S)
    late = clock.when_next_asked(partial(put, ready, 3))
    assert numbers(ready.next_batch()) == [3]
    late.join()


def test_operations_are_not_held_when_there_was_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "HOLD_MAX_S", 60)
    ready = queue_with(Clock(60), max_batch_size=1)
    put(ready, 1, 2, priority=OPERATION)
    assert numbers(ready.next_batch()) == [1]
    assert numbers(ready.next_batch()) == [2]


def test_a_closed_queue_is_emptied_and_then_over() -> None:
    ready = ready_queue(8, max_wait_s=LIMIT_S)
    put(ready, 1)
    put(ready, 2, priority=OPERATION)
    ready.expect(claim(3))
    ready.close()
    assert numbers(ready.next_batch()) == [1]
    assert numbers(ready.next_batch()) == [2]
    assert ready.next_batch() is None


def test_operations_beside_calls_come_in_polite_batches() -> None:
    politeness = Politeness(8)
    ready = ReadyQueue(max_batch_size=8, max_wait_s=0, politeness=politeness)
    put(ready, *range(10, 18), priority=OPERATION)
    put(ready, 1)
    assert numbers(ready.next_batch()) == [1]
    politeness.note(1, 1.0)
    politeness.note(2, 1.25)
    assert numbers(ready.next_batch()) == [10, 11, 12]
