from pathlib import Path

import numpy as np
import pytest

from worker.engine import Float32Array, UInt8Array
from worker.engines.fixed_sizes import FixedSizes, Run
from worker.model_spec import InputRule, ModelFile, ModelSpec

SPEC = ModelSpec(
    name="first-pixel",
    version="1",
    engine="litert",
    origin=ModelFile(path=Path("model.tflite")),
    labels=("a",),
    input=InputRule(width=1, height=1),
)


class Builder:
    """Networks whose score is the first byte, and what became of them."""

    def __init__(self, *impossible: int) -> None:
        self.asked: list[int] = []
        self.built: list[int] = []
        self.runs: list[int] = []
        self._impossible = impossible

    def __call__(self, size: int) -> Run:
        self.asked.append(size)
        if size in self._impossible:
            raise ValueError(f"no batches of {size}")
        self.built.append(size)

        def run(images: UInt8Array) -> Float32Array:
            assert len(images) == size
            self.runs.append(size)
            return images[:, 0, 0, :1].astype(np.float32)

        return run


def images(count: int) -> UInt8Array:
    return np.arange(count * 3, dtype=np.uint8).reshape(count, 1, 1, 3)


@pytest.mark.parametrize(
    ("size", "runs"),
    [(8, [8]), (1, [1]), (3, [1, 1, 1]), (9, [8, 1]), (21, [8, 8, 4, 1])],
)
def test_a_batch_is_put_together_from_the_largest_sizes_there_are(
    size: int, runs: list[int]
) -> None:
    builder = Builder()
    engine = FixedSizes(SPEC, builder)
    engine.warm_up([1, 8, 4])
    builder.runs.clear()
    assert engine.predict(images(size)).tolist() == [[3 * number] for number in range(size)]
    assert builder.runs == runs


def test_each_warm_up_runs_a_batch_of_the_size_and_builds_it_once() -> None:
    builder = Builder()
    engine = FixedSizes(SPEC, builder)
    engine.warm_up([4])
    builder.runs.clear()
    engine.warm_up([4])
    assert builder.runs == [4]
    assert builder.built == [4]


def test_one_image_needs_no_warm_up() -> None:
    builder = Builder()
    assert FixedSizes(SPEC, builder).predict(images(2)).tolist() == [[0], [3]]
    assert builder.built == [1]


def test_a_model_of_one_image_at_a_time_takes_batches_all_the_same() -> None:
    builder = Builder(4)
    engine = FixedSizes(SPEC, builder)
    # Measuring how long a batch takes warms up again and again.
    for _ in range(3):
        engine.warm_up([1, 4])
    assert engine.predict(images(4)).tolist() == [[0], [3], [6], [9]]
    assert builder.asked == [1, 4]


def test_a_network_that_loses_the_size_of_the_batch_is_not_used() -> None:
    def build(size: int) -> Run:
        del size
        # As a `Reshape` to (1, -1) does, at the end of a model for one image.
        return lambda images: images[:, 0, 0, :1].astype(np.float32).reshape(1, -1)

    engine = FixedSizes(SPEC, build)
    engine.warm_up([1, 4])
    assert engine.predict(images(4)).shape == (4, 1)


def test_a_model_that_does_not_run_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no batches of 1"):
        FixedSizes(SPEC, Builder(1)).warm_up([1])
