"""The work that every peer does: the same check, decoder, engine and answer for all of them.

What they are told comes through the environment, as their own command lines start the processes
that need it.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from tests.bench.in_process import loaded
from tests.bench.payloads import CLASSES
from worker.engine import Engine, UInt8Array
from worker.engines import null
from worker.machine import usable_cores

ENGINE: Final = "PEER_ENGINE"
"""`null`, or an engine of the bundled model."""

WORKERS: Final = "PEER_WORKERS"
"""Processes of the model; each computes in one thread."""

BATCH: Final = "PEER_BATCH"
"""Most images in one inference."""

REDIS: Final = "PEER_REDIS"
"""URL of a Redis that nobody else uses."""

TOP_K: Final = 5

Best = list[dict[str, float]]
"""Of one image: `class_id` and `score` of the best classes, the best first."""


def engine_name() -> str:
    """Return what the model runs in."""
    return os.environ[ENGINE]


def worker_count() -> int:
    """Return how many processes run the model."""
    return int(os.environ[WORKERS])


def batch_size() -> int:
    """Return how many images may wait for each other."""
    return int(os.environ[BATCH])


def wait_s() -> float:
    """Return how long an image waits for others, seconds: a part of what it takes by itself."""
    return 0.001 if engine_name() == "null" else 0.005


class Work:
    """The model, loaded into this process."""

    def __init__(self) -> None:
        """Load it."""
        self._decode: Callable[[bytes], UInt8Array] = null.checked
        self._engine: Engine = null.NullEngine(CLASSES)
        if engine_name() != "null":
            # As a worker of ours has it: a lone image gets all cores.
            cores = usable_cores()
            self._decode, self._engine = loaded(engine_name(), threads=1, alone_threads=cores)

    def best(self, images: Sequence[bytes]) -> list[Best]:
        """Return the best classes of each image."""
        scores = self._engine.predict(np.stack([self._decode(image) for image in images]))
        orders = scores.argsort(axis=1)[:, ::-1][:, :TOP_K]
        return [
            [{"class_id": int(each), "score": float(row[each])} for each in order]
            for row, order in zip(scores, orders, strict=True)
        ]

    def texts(self, images: Sequence[bytes]) -> list[bytes]:
        """Return the same as JSON."""
        return [json.dumps(each).encode() for each in self.best(images)]
