"""One image gets all cores while nobody else computes."""

from collections.abc import Sequence

import numpy as np
import pytest

from worker.engine import Float32Array, UInt8Array
from worker.engines.all_cores import AllCores, wide_engine


class Engine:
    def __init__(self, score: float) -> None:
        self.score = score
        self.warmed: list[int] = []

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        self.warmed += batch_sizes

    def predict(self, images: UInt8Array) -> Float32Array:
        if images[0, 0, 0, 0]:
            raise ValueError("bad image")
        return np.full((len(images), 1), self.score, np.float32)


class Computing:
    def __init__(self, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self.now = 0

    def begin(self) -> bool:
        self.now += 1
        return self.is_alone

    def end(self) -> None:
        self.now -= 1


FEW, MANY = 1.0, 2.0
IMAGE: UInt8Array = np.zeros((1, 1, 1, 3), np.uint8)


@pytest.mark.parametrize(
    ("is_alone", "count", "by"), [(True, 1, MANY), (True, 2, FEW), (False, 1, FEW)]
)
def test_who_scores(*, is_alone: bool, count: int, by: float) -> None:
    computing = Computing(is_alone=is_alone)
    engine = AllCores(Engine(FEW), Engine(MANY), computing)  # type: ignore[arg-type]
    scores = engine.predict(np.zeros((count, 1, 1, 3), np.uint8))
    assert scores.tolist() == [[by]] * count
    assert computing.now == 0


def test_a_failure_leaves_nothing_behind() -> None:
    computing = Computing(is_alone=True)
    engine = AllCores(Engine(FEW), Engine(MANY), computing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bad image"):
        engine.predict(np.ones((1, 1, 1, 3), np.uint8))
    assert computing.now == 0


def test_an_engine_without_threads_to_add_says_that_it_computes() -> None:
    computing = Computing(is_alone=True)
    seen: list[int] = []

    class Seeing(Engine):
        def predict(self, images: UInt8Array) -> Float32Array:
            seen.append(computing.now)
            return super().predict(images)

    AllCores(Seeing(FEW), None, computing).predict(IMAGE)  # type: ignore[arg-type]
    assert (seen, computing.now) == ([1], 0)


def test_batches_are_measured_as_they_run_under_load() -> None:
    few, many = Engine(FEW), Engine(MANY)
    AllCores(few, many, Computing(is_alone=True)).warm_up([1, 2])  # type: ignore[arg-type]
    assert few.warmed == [1, 2]
    assert many.warmed == []


def test_an_engine_that_cannot_be_had_is_done_without() -> None:
    def broken() -> Engine:
        raise ValueError("no such threads")

    assert wide_engine(broken) is None


def test_one_that_can_be_had_is_warm() -> None:
    many = Engine(MANY)
    assert wide_engine(lambda: many) is many
    assert many.warmed == [1]
