"""The model's loop: take a batch, run it, answer it."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import structlog

from despacho.job.v1.job_pb2 import ModelCard
from dispatch.errors import InferenceFailed
from dispatch.retiring import Ended
from dispatch.work_queue import WorkQueue
from telemetry import tracing
from telemetry.metrics_catalogue import BATCH_IMAGES, INFERENCE_SECONDS
from worker import job_spans
from worker.batch_cost import BatchCost
from worker.batching import Prepared, ReadyQueue
from worker.engine import Engine, Float32Array, UInt8Array
from worker.in_hand import InHand
from worker.job_fields import fields_of_all
from worker.outbox import Outbox, patience_s
from worker.politeness import Politeness
from worker.publisher import Publisher
from worker.quickness import Quickness
from worker.replies import answered, not_inferred
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
        cost: BatchCost,
        politeness: Politeness,
        publisher: Publisher,
        work_done: WorkDone,
        engine: Engine,
        card: ModelCard,
        decode_one: Callable[[], None],
    ) -> None:
        self._decode_one = decode_one
        self._queue = queue
        self._in_hand = in_hand
        self._sieve = sieve
        self._ready = ready
        self._cost = cost
        self._politeness = politeness
        self._publisher = publisher
        self._work_done = work_done
        self._engine = engine
        self._card = card
        self._labels = list(card.labels)
        self._rows = np.empty((0, 0, 0, 3), np.uint8)
        self._running_since: float | None = None
        self._quick = Quickness()
        self._outbox = Outbox()
        self._turn = threading.Lock()

    def running_for_s(self) -> float:
        """Return how long the current inference has been running, seconds; 0 if none is."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def is_late(self) -> bool:
        """Return whether an answer waits for longer than it may, as for a huge image's decoding."""
        return self._outbox.is_due()

    def relieve(self) -> None:
        """Send the answers that wait now: what they wait for takes longer than it should."""
        answers = self._outbox.take()
        if answers:
            self._publisher.publish_and_look(answers, looks=False)

    def run(self) -> None:
        """Answer batches until the ready queue is closed."""
        while (batch := self._ready.next_batch()) is not None:
            with self._turn:
                batch = batch or self._complete_calls()
                while batch:
                    self._take_on(batch)
                    # What is ready anyway: the answers go along with the look at it, or later.
                    batch = self._complete_calls()
                self._publish(looks=False)

    def run_ready(self) -> None:
        """Answer the calls that are ready in the caller's thread, if that takes no time.

        What is left is for the thread of `run`.
        """
        if self._quick and self._turn.acquire(blocking=False):
            try:
                # Asked each time: the caller has other things to do than to wait for a model.
                while self._quick and (batch := self._ready.calls_now()):
                    self._take_on(batch)
                    self._publish(looks=False)
            finally:
                self._turn.release()
        self._ready.nudge()

    def _complete_calls(self) -> list[Prepared]:
        """Decode what is missing in a batch, if nobody else does; return it if it is of calls."""
        while self._ready.lacks_images():
            if self._outbox.is_due():
                self._publish(looks=False)
            self._decode_one()
        return self._ready.complete_calls()

    def _take_on(self, batch: Sequence[Prepared]) -> None:
        """Put the answers to a batch into the outbox, once those before are on their way."""
        if self._outbox.may_wait(self._cost.seconds(len(batch))):
            self._in_hand.note_answered(self._outbox.claims())
        else:
            # The last look before the expensive part. The keeper looks once a second; a call may
            # have been cancelled since, or this process may have slept. All that is in hand: it
            # costs no more. If Redis is away, it is computed, perhaps for nobody.
            self._publish(looks=True)
        wanted = [item for item in batch if self._sieve.passes(item.claim, "inference")]
        if wanted:
            self._outbox.add(self._answers(wanted), min(map(self._patience_s, wanted)))

    def _patience_s(self, item: Prepared) -> float:
        left_ms = item.claim.deadline_ms - self._queue.now_ms()
        return patience_s(item.queue_us / 1e6, left_ms / 1e3)

    def _publish(self, *, looks: bool) -> None:
        answers = self._outbox.take()
        if self._quick:
            self._publisher.publish_now(answers)
        elif answers or looks:
            self._publisher.publish_and_look(answers, looks=looks)

    def _answers(self, batch: Sequence[Prepared]) -> list[Ended]:
        """Run the model; where it raises, find the image at fault."""
        started = time.monotonic()
        try:
            scores = self._scores(batch)
        except Exception:
            log.exception("the model failed", **fields_of_all([item.claim for item in batch]))
            self._trace(batch, time.monotonic() - started, reason=InferenceFailed.reason)
            if len(batch) == 1:
                return [not_inferred(self._queue.worker, batch[0].claim)]
            # One bad image must not take its neighbours along.
            return [ended for item in batch for ended in self._answers([item])]
        inference_s = time.monotonic() - started
        self._trace(batch, inference_s)
        self._quick.note(inference_s)
        self._politeness.note(len(batch), inference_s)
        self._cost.note(len(batch), inference_s)
        self._work_done.add(len(batch), inference_s)
        INFERENCE_SECONDS.observe(inference_s, self._card.name)
        BATCH_IMAGES.observe(len(batch), self._card.name)
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

    def _trace(self, batch: Sequence[Prepared], seconds: float, *, reason: str = "") -> None:
        if tracing.tracer is not None:
            claims = [item.claim for item in batch]
            job_spans.inferred(tracing.tracer, claims, seconds, size=len(batch), reason=reason)

    def _scores(self, batch: Sequence[Prepared]) -> Float32Array:
        images = self._together(batch)
        self._running_since = time.monotonic()
        try:
            scores = self._engine.predict(images)
        finally:
            self._running_since = None
        if scores.shape != (len(batch), len(self._labels)):
            raise ValueError(f"scores of shape {scores.shape} for {len(batch)} images")
        # 3 to 5 microseconds. Sorted, they would make class 0 the best.
        if not np.isfinite(scores).all():
            raise ValueError("scores that are not numbers")
        return scores

    def _together(self, batch: Sequence[Prepared]) -> UInt8Array:
        """Return the images in one piece; one alone is that where it was decoded."""
        if len(batch) == 1:
            return batch[0].pixels[np.newaxis]
        shape = batch[0].pixels.shape
        if len(self._rows) < len(batch) or self._rows.shape[1:] != shape:
            # Once for all batches: new memory costs more than what is written to it.
            self._rows = np.empty((max(len(batch), self._card.max_batch_size), *shape), np.uint8)
        return np.stack([item.pixels for item in batch], out=self._rows[: len(batch)])


def most_in_hand(batch_size: int) -> int:
    """Return how many calls a worker holds: a batch in the model, and one on its way to it.

    Two more, as one is on its way to Redis and one on its way from it. Any others are better off
    in the queue, where an idle worker finds them.
    """
    return 2 * batch_size + 2
