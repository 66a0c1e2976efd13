"""One process of a trial: `python -m worker.tune.trial_process`, see `trial.py`.

    reads    {"spec": ..., "threads": 1, "cache_dir": "..."}
    answers  {"agreement": {...} or null}
    reads    {"batch_size": 4, "seconds": 0.25}, any number of times
    answers  {"images_per_s": 61.2}

Each is one line. Instead of an answer it may say {"error": "..."}.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from worker.agreement import photos
from worker.engine import Engine, UInt8Array
from worker.engines.checks import summary
from worker.engines.child import orders
from worker.engines.loading import load_unchecked
from worker.model_spec import ModelSpec


def main() -> None:
    """Answer until the parent is gone."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    told = orders()
    order = json.loads(next(told))
    try:
        spec = ModelSpec.model_validate_json(json.dumps(order["spec"]))
        loaded = load_unchecked(spec, threads=order["threads"], cache_dir=Path(order["cache_dir"]))
        found = loaded.compared()
        _answer(answers, {"agreement": found and found.model_dump()})
        images = photos(spec.input)
        for line in told:
            _answer(answers, _timed(loaded.engine, images, **json.loads(line)))
    except Exception as error:  # noqa: BLE001 - told to the parent, and the process ends
        _answer(answers, {"error": summary(error)})


def _timed(
    engine: Engine, images: UInt8Array, *, batch_size: int, seconds: float
) -> dict[str, Any]:
    """Run at least one batch, after one that is not counted."""
    batch = np.ascontiguousarray(np.resize(images, (batch_size, *images.shape[1:])))
    engine.warm_up([batch_size])
    started = time.perf_counter()
    count, taken = 0, 0.0
    while taken < seconds:
        engine.predict(batch)
        count += batch_size
        taken = time.perf_counter() - started
    return {"images_per_s": count / taken}


def _answer(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)
