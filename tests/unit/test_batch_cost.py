"""Which batches are worth filling, and how long they take."""

from collections.abc import Callable, Sequence

import pytest

from worker.batch_cost import BatchCost


class Engine:
    """Takes as long for a batch as a formula says, by a clock of its own."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds
        self.now_s = 0.0
        self.sizes: list[int] = []

    def clock(self) -> float:
        return self.now_s

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        self.sizes += batch_sizes
        self.now_s += sum(self._seconds(size) for size in batch_sizes)


def measured(most: int, seconds: Callable[[int], float]) -> BatchCost:
    cost, engine = BatchCost(most), Engine(seconds)
    cost.measure(engine.warm_up, engine.clock)
    return cost


def test_where_each_image_takes_its_time_a_few_are_as_good() -> None:
    assert measured(16, lambda size: 0.01 * size).best_size == 4
    assert measured(3, lambda size: 0.01 * size).best_size == 3
    assert measured(1, lambda size: 0.01 * size).best_size == 1


def test_nobody_waits_long_for_others_where_that_saves_nothing() -> None:
    assert measured(16, lambda size: 0.03 * size).best_size == 1
    assert measured(16, lambda size: 0.3 * size).best_size == 1


def test_a_few_that_take_longer_each_are_not_better_than_one() -> None:
    assert measured(16, lambda size: 0.01 * size**1.5).best_size == 1


def test_where_larger_batches_take_no_longer_they_are_filled() -> None:
    assert measured(16, lambda size: 0.01 + 0.0001 * size).best_size == 16
    assert measured(12, lambda _: 0.01).best_size == 12


def test_a_batch_is_no_larger_than_where_it_stops_to_pay() -> None:
    assert measured(64, lambda size: max(0.04, 0.01 * size)).best_size == 4


def test_an_idle_worker_takes_at_once_what_hardly_takes_longer_together() -> None:
    assert measured(16, lambda size: 0.01 * size).cheap_size == 1
    assert measured(16, lambda size: 0.01 + 0.001 * size).cheap_size == 4
    assert measured(64, lambda size: max(0.04, 0.01 * size)).cheap_size == 4
    assert measured(16, lambda _: 0.0).cheap_size == 16


def test_sizes_that_are_no_better_are_not_tried_to_the_end() -> None:
    engine = Engine(lambda size: 0.01 * size)
    BatchCost(256).measure(engine.warm_up, engine.clock)
    assert max(engine.sizes) == 2


def test_an_engine_without_a_warm_up_gets_full_batches() -> None:
    cost = measured(16, lambda _: 0.0)
    assert cost.best_size == 16
    assert cost.seconds(1) is None
    assert cost.saved_s() is None
    cost.note(3, 1.0)
    assert cost.best_size == 16


def test_one_size_that_is_slow_tells_of_all_others() -> None:
    cost = measured(16, lambda size: 0.01 * size)
    for _ in range(100):
        cost.note(3, 0.06)  # another process runs on the same core now
    assert cost.seconds(1) == pytest.approx(0.02, rel=0.01)
    assert cost.seconds(8) == pytest.approx(0.16, rel=0.01)
    assert cost.best_size == 4


@pytest.mark.parametrize(("size", "seconds"), [(1, 0.02), (2, 0.03), (3, 0.04), (8, 0.1)])
def test_the_time_of_a_size_that_was_not_tried_lies_between_others(
    size: int, seconds: float
) -> None:
    cost = measured(4, lambda one: 0.01 + 0.01 * one)
    assert cost.seconds(size) == pytest.approx(seconds)
