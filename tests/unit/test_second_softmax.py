"""A model that ends in a softmax, and is described as if it did not."""

from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from worker.engine import Float32Array
from worker.engines.around_model import softmax
from worker.engines.checks import warn_of_second_softmax
from worker.model_spec import InputRule, ModelFile, ModelSpec

LOGITS = np.random.default_rng(3).normal(0, 3, (4, 10)).astype(np.float32)
SPEC = ModelSpec(
    name="small",
    version="1",
    origin=ModelFile(path=Path("model.keras")),
    labels=tuple("abcdefghij"),
    input=InputRule(width=1, height=1),
    softmax=True,
)


@pytest.mark.parametrize(
    ("returned", "is_set", "count"),
    [
        (softmax(LOGITS), True, 1),
        (np.eye(10, dtype=np.float32)[:4], True, 1),
        (LOGITS, True, 0),
        (100 * LOGITS, True, 0),
        (softmax(LOGITS), False, 0),
    ],
    ids=["probabilities", "certain", "logits", "large logits", "as it is"],
)
def test_a_softmax_of_probabilities_is_noticed(
    returned: Float32Array, *, is_set: bool, count: int
) -> None:
    spec = SPEC.model_copy(update={"softmax": is_set})
    with capture_logs() as logged:
        warn_of_second_softmax(spec, softmax(returned) if is_set else returned)
    assert len(logged) == count
    for line in logged:
        assert "leave out `softmax = true`" in line["event"]
