"""How decoded images become batches."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dispatch.jobs import Priority
from tests.batching_steps import (
    HIGH,
    LIMIT_S,
    LOW,
    NORMAL,
    OPERATION,
    claim,
    numbers,
    prepared,
    put,
    ready_queue,
)
from worker.batch_cost import BatchCost
from worker.batching import Prepared, ReadyQueue
from worker.politeness import Politeness


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
