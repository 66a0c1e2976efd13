"""How decoded images become batches."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from despacho.job.v1.job_pb2 import Job
from dispatch.jobs import Claim, Priority
from worker import batching
from worker.batch_cost import BatchCost
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
        ready.put([item])


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
    max_batch_size: int,
    *,
    max_wait_s: float,
    cost: BatchCost | None = None,
    remaining_s: Callable[[Claim], float] = lambda _: math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> ReadyQueue:
    return ReadyQueue(
        max_wait_s=max_wait_s,
        cost=cost or BatchCost(max_batch_size),
        politeness=NeverPolite(max_batch_size),
        remaining_s=remaining_s,
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
    late = threading.Thread(target=ready.put, args=[[prepared(2, priority)]])
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
    late = threading.Thread(target=ready.put, args=[[prepared(3)]])
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


def test_a_call_that_is_being_decoded_is_awaited_whatever_operations_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "HOLD_MAX_S", LIMIT_S)
    clock = Clock(60)
    ready = queue_with(clock)
    put(ready, 1)
    put(ready, 2, priority=OPERATION)
    assert numbers(ready.next_batch()) == [1]

    def come() -> None:
        ready.expect(claim(3))
        put(ready, 4, priority=OPERATION)
        time.sleep(0.05)  # for the model to look at what has come
        ready.put([prepared(3)])

    late = clock.when_next_asked(come)
    assert numbers(ready.next_batch()) == [3]
    late.join()


def test_an_idle_model_that_holds_operations_runs_the_first_call_as_soon_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def waits() -> None:
        raise AssertionError("it waits for another image")

    monkeypatch.setattr(batching, "HOLD_MAX_S", LIMIT_S)
    clock, cost = Clock(60), BatchCost(8)
    ready = ready_queue(8, max_wait_s=LIMIT_S, cost=cost, clock=clock)
    put(ready, 1)
    assert numbers(ready.next_batch()) == [1]
    monkeypatch.setattr(cost, "saved_s", waits)

    def come() -> None:
        ready.expect(claim(2))
        ready.expect(claim(3))
        ready.put([prepared(2)])

    late = clock.when_next_asked(come)
    assert numbers(ready.next_batch()) == [2]
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
    calls = [[number] for number in range(HOLDS_IN_A_ROW + 1)]
    assert [numbers(batch) for batch in batches] == [*calls, [100]]


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


def test_a_model_that_waited_for_more_while_others_ran_what_there_was_goes_on() -> None:
    waits, has_looked = threading.Event(), threading.Event()

    class Cost(BatchCost):
        def saved_s(self) -> float | None:
            waits.set()
            return None

    class Looks(Politeness):
        def batch_size(self) -> int:
            has_looked.set()
            return super().batch_size()

    ready = ReadyQueue(
        max_wait_s=60, cost=Cost(8), politeness=Looks(8), remaining_s=lambda _: math.inf
    )
    put(ready, 1)
    ready.expect(claim(2))
    batches: list[list[Prepared] | None] = []
    model = threading.Thread(target=lambda: batches.append(ready.next_batch()))
    model.start()
    assert waits.wait(LIMIT_S)
    assert numbers(ready.calls_now()) == [1]
    ready.give_up(claim(2))
    assert has_looked.wait(LIMIT_S)
    put(ready, 3)
    model.join(LIMIT_S)
    assert [numbers(batch) for batch in batches] == [[3]]


def test_operations_beside_calls_come_in_polite_batches() -> None:
    politeness = Politeness(8)
    ready = ReadyQueue(
        max_wait_s=0,
        cost=BatchCost(8),
        politeness=politeness,
        remaining_s=lambda _: math.inf,
    )
    put(ready, *range(10, 18), priority=OPERATION)
    put(ready, 1)
    assert numbers(ready.next_batch()) == [1]
    politeness.note(1, 1.0)
    politeness.note(2, 1.25)
    assert numbers(ready.next_batch()) == [10, 11, 12]


def measured(most: int, seconds: Callable[[int], float]) -> BatchCost:
    """Return what is known of an engine that takes that long for a batch."""
    now_s = 0.0

    def warm_up(batch_sizes: Sequence[int]) -> None:
        nonlocal now_s
        now_s += sum(seconds(size) for size in batch_sizes)

    cost = BatchCost(most)
    cost.measure(warm_up, lambda: now_s)
    return cost


def test_a_batch_is_as_large_as_is_worth_filling() -> None:
    ready = ready_queue(8, max_wait_s=LIMIT_S, cost=measured(8, lambda size: 0.3 * size))
    put(ready, 1, 2)
    assert numbers(ready.next_batch()) == [1]
    assert numbers(ready.next_batch()) == [2]


def test_an_idle_model_does_not_wait_for_what_is_being_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready = ready_queue(8, max_wait_s=60)
    ready.expect(claim(1))
    ready.expect(claim(2))
    is_waiting = threading.Event()
    wait_for = ready._changed.wait_for

    def seen(*arguments: Any) -> object:
        is_waiting.set()
        return wait_for(*arguments)

    def put_late() -> None:
        assert is_waiting.wait(LIMIT_S)
        ready.put([prepared(1)])

    monkeypatch.setattr(ready._changed, "wait_for", seen)
    late = threading.Thread(target=put_late)
    late.start()
    assert numbers(ready.next_batch()) == [1]
    late.join()


def test_a_busy_model_waits_no_longer_than_a_larger_batch_saves() -> None:
    ready = ready_queue(8, max_wait_s=60, cost=measured(8, lambda size: 0.01 + 0.001 * size))
    put(ready, 1)
    ready.expect(claim(2))
    assert numbers(ready.next_batch()) == [1]


def test_a_batch_is_small_enough_for_its_most_urgent_image() -> None:
    left_s = {"1-0": 5.0, "2-0": 2.6, "3-0": 5.0, "4-0": 5.0}
    ready = ready_queue(
        4,
        max_wait_s=LIMIT_S,
        cost=measured(4, lambda size: 1 + 0.5 * size),
        remaining_s=lambda claim: left_s[claim.entry_id],
    )
    put(ready, 1, 2, 3, 4)
    assert numbers(ready.next_batch()) == [1, 2, 3]


def test_an_image_that_is_too_late_anyway_makes_no_other_one_late() -> None:
    left_s = {"1-0": 0.1, "2-0": 2.6, "3-0": 5.0, "4-0": 5.0}
    ready = ready_queue(
        4,
        max_wait_s=LIMIT_S,
        cost=measured(4, lambda size: 1 + 0.5 * size),
        remaining_s=lambda claim: left_s[claim.entry_id],
    )
    put(ready, 1, 2, 3, 4)
    assert numbers(ready.next_batch()) == [1, 2, 3]


def test_an_image_that_is_too_late_anyway_does_not_make_batches_smaller() -> None:
    cost = measured(4, lambda size: 0.9 + 0.1 * size)
    ready = ready_queue(4, max_wait_s=LIMIT_S, cost=cost, remaining_s=lambda _: 0.1)
    put(ready, 1, 2, 3, 4)
    assert numbers(ready.next_batch()) == [1, 2, 3, 4]
