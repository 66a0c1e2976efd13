"""What this worker has done since it started, for those who watch."""

import threading

from despacho.job.v1.job_pb2 import WorkerCard


class WorkDone:
    """Counted by the model's loop, told by the keeper."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images = 0
        self._batches = 0
        self._inference_us = 0

    def add(self, images: int, inference_s: float) -> None:
        """Count a batch.

        Args:
            images: how many were in it.
            inference_s: how long the model was running, seconds.
        """
        with self._lock:
            self._images += images
            self._batches += 1
            self._inference_us += round(inference_s * 1e6)

    def write_to(self, card: WorkerCard) -> None:
        """Write the counts into `card`."""
        with self._lock:
            card.images = self._images
            card.batches = self._batches
            card.inference_us = self._inference_us
