"""Operations are held after a call, so that its caller finds the model free."""

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.batching_steps import (
    LIMIT_S,
    OPERATION,
    claim,
    numbers,
    prepared,
    put,
    ready_queue,
)
from worker import batching
from worker.batch_cost import BatchCost
from worker.batching import HOLDS_IN_A_ROW, ReadyQueue


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


def queue_with(clock: Clock, *, max_batch_size: int = 8) -> ReadyQueue:
    return ready_queue(max_batch_size, max_wait_s=0, clock=clock)


def holding(monkeypatch: pytest.MonkeyPatch) -> tuple[ReadyQueue, Clock]:
    """Return a queue with an operation, held for long since a call has just been taken."""
    monkeypatch.setattr(batching, "HOLD_MAX_S", LIMIT_S)
    clock = Clock(60)
    ready = queue_with(clock)
    put(ready, 1)
    put(ready, 2, priority=OPERATION)
    assert numbers(ready.next_batch()) == [1]
    return ready, clock


def test_after_a_call_operations_are_held_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready, clock = holding(monkeypatch)
    late = clock.when_next_asked(partial(put, ready, 3))
    assert numbers(ready.next_batch()) == [3]
    late.join()


def test_a_call_that_is_being_decoded_is_awaited_whatever_operations_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready, clock = holding(monkeypatch)

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
