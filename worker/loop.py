"""The model's loop: take a batch, run it, answer it."""

import time
from collections.abc import Sequence

import numpy as np
import structlog

from despacho.job.v1.job_pb2 import ModelCard
from dispatch.errors import BrokerUnavailable
from dispatch.work_queue import WorkQueue
from worker.batching import Prepared, ReadyQueue
from worker.engine import Engine, Float32Array
from worker.in_hand import InHand
from worker.politeness import Politeness
from worker.publisher import Publisher
from worker.replies import Ended, answered, not_inferred
from worker.sieve import Sieve
from worker.work_done import WorkDone

log = structlog.get_logger()


class Loop:
    """Runs the model on what the intake has decoded."""

    def __init__(
        self,
        *,
        queue: WorkQueue,
        in_hand: InHand,
        sieve: Sieve,
        ready: ReadyQueue,
        politeness: Politeness,
        publisher: Publisher,
        work_done: WorkDone,
        engine: Engine,
        card: ModelCard,
    ) -> None:
        self._queue = queue
        self._in_hand = in_hand
        self._sieve = sieve
        self._ready = ready
        self._politeness = politeness
        self._publisher = publisher
        self._work_done = work_done
        self._engine = engine
        self._card = card
        self._labels = list(card.labels)
        self._running_since: float | None = None

    def running_for_s(self) -> float:
        """Return how long the current inference has been running, seconds; 0 if none is."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def run(self) -> None:
        """Answer batches until the ready queue is closed."""
        while (batch := self._ready.next_batch()) is not None:
            if wanted := self._still_wanted(batch):
                self._publisher.publish(self._answers(wanted))

    def _still_wanted(self, batch: Sequence[Prepared]) -> list[Prepared]:
        """Drop what nobody waits for any more: the last look before the expensive part."""
        self._look_for_lost(batch)
        return [item for item in batch if self._sieve.passes(item.claim, "inference")]

    def _look_for_lost(self, batch: Sequence[Prepared]) -> None:
        # The keeper looks once a second; a call may have been cancelled since, or
        # this process may have slept. One round trip is cheap beside an inference.
        try:
            self._in_hand.mark_lost(self._queue.renew([item.claim for item in batch]))
        except BrokerUnavailable:
            return  # computed, perhaps for nobody; the answer waits for Redis

    def _answers(self, batch: Sequence[Prepared]) -> list[Ended]:
        """Run the model; where it raises, find the image at fault."""
        started = time.monotonic()
        try:
            scores = self._scores(batch)
        except Exception:
            request_ids = [item.claim.job.request_id for item in batch]
            log.exception("the model failed", request_ids=request_ids)
            if len(batch) == 1:
                return [not_inferred(self._queue.worker, batch[0].claim)]
            # One bad image must not take its neighbours along.
            return [ended for item in batch for ended in self._answers([item])]
        inference_s = time.monotonic() - started
        self._politeness.note(len(batch), inference_s)
        self._work_done.add(len(batch), inference_s)
        inference_us = round(inference_s * 1e6)
        log.debug("batch", size=len(batch), inference_us=inference_us)
        return [
            answered(
                self._queue.worker,
                item,
                row,
                self._labels,
                model_version=self._card.version,
                inference_us=inference_us,
                batch_size=len(batch),
            )
            for item, row in zip(batch, scores, strict=True)
        ]

    def _scores(self, batch: Sequence[Prepared]) -> Float32Array:
        images = np.stack([item.pixels for item in batch])
        self._running_since = time.monotonic()
        try:
            scores = self._engine.predict(images)
        finally:
            self._running_since = None
        if scores.shape != (len(batch), len(self._labels)):
            raise ValueError(f"scores of shape {scores.shape} for {len(batch)} images")
        return scores
