"""Engines and timings that tests of the choice between engines are given."""

from pathlib import Path
from typing import Any

from worker.agreement import TOLERANCE, Agreement
from worker.model_spec import InputRule, ModelFile, ModelSpec
from worker.tune.table import Candidate, Mode, Row

TENSORFLOW = Candidate(engine="tensorflow", version="1")
LITERT = Candidate(engine="litert", version="2")
OPENVINO = Candidate(engine="openvino", version="3")
BF16 = Candidate(engine="openvino", version="3", precision="bf16")

MODE = Mode(processes=2, threads=1)
GOOD = Agreement(photos=12, max_difference=1e-6, same_best=1)
SMALL_BUT_ANOTHER_BEST = Agreement(photos=12, max_difference=1e-6, same_best=0.9)
FAR = Agreement(photos=12, max_difference=2 * TOLERANCE, same_best=1)
ROUGH = Agreement(photos=12, max_difference=0.05, same_best=1)


def row(candidate: Candidate, rate: float, batch: int = 1, found: Agreement | None = GOOD) -> Row:
    return Row(
        candidate=candidate,
        mode=MODE,
        batch_size=batch,
        images_per_s=rate,
        agreement=None if candidate is TENSORFLOW else found,
    )


def spec(path: Path, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "colours",
        "version": "1",
        "origin": ModelFile(path=path),
        "labels": ("red", "green"),
        "input": InputRule(width=6, height=4),
    }
    return ModelSpec(**(fields | changes))
