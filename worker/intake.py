"""Takes calls from the queue, and what others have lost or given back."""

import threading
import time
from collections.abc import Sequence
from typing import Final

import structlog

from despacho.job.v1.job_pb2 import DeadLetter
from dispatch.errors import BrokerUnavailable, JobPoisoned
from dispatch.jobs import CALL_PRIORITIES, Claim
from dispatch.work_queue import Reclaimed, WorkQueue
from telemetry import tracing
from telemetry.absence import Absence
from telemetry.metrics_catalogue import IMAGES, REDELIVERIES
from worker import job_spans
from worker.batch_cost import BatchCost
from worker.decoders import Decoders
from worker.in_hand import InHand
from worker.job_fields import fields_of
from worker.operations_intake import OperationsIntake
from worker.replies import failed

log = structlog.get_logger()

RECLAIM_PERIOD_S: Final = 0.5
WAIT_S: Final = 0.5
"""How long to wait for room before looking around again."""

PAUSE_S: Final = 0.2
"""Between tries while Redis is away."""


class Intake:
    """Claims calls and reclaims until stopped."""

    def __init__(
        self,
        queue: WorkQueue,
        in_hand: InHand,
        decoders: Decoders,
        operations: OperationsIntake,
        cost: BatchCost,
        *,
        max_deliveries: int,
        dead_letter_max_bytes: int,
    ) -> None:
        """Claim nothing yet.

        Args:
            queue: where jobs come from.
            in_hand: what this worker holds.
            decoders: where claims go.
            operations: claims operations; held while a suspect is wanted.
            cost: knows which images are no slower together.
            max_deliveries: the delivery at which a job is set aside instead of run.
            dead_letter_max_bytes: most bytes of jobs set aside.
        """
        self._queue = queue
        self._in_hand = in_hand
        self._decoders = decoders
        self._operations = operations
        self._cost = cost
        self._max_deliveries = max_deliveries
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._stopping = threading.Event()
        self._reclaim_at = 0.0
        self._has_suspects = False
        self._absence = Absence("calls")

    def run(self) -> None:
        """Take jobs in until stopped."""
        while not self._stopping.is_set():
            try:
                self._take(self._next_claims())
            except BrokerUnavailable as error:
                # What was claimed stays pending in Redis and is reclaimed.
                self._absence.noticed(error)
                self._stopping.wait(PAUSE_S)

    def stop(self) -> None:
        """Claim no more; what is in hand is still decoded."""
        self._stopping.set()

    def _next_claims(self) -> list[Claim]:
        if self._has_suspects:
            return self._next_suspect()
        room = self._in_hand.wait_for_call_room(WAIT_S)
        if not room:
            return []
        if time.monotonic() >= self._reclaim_at:
            reclaimed = self._queue.reclaim(room=self._in_hand.room_for_any(), take_suspect=False)
            claims = self._noted(reclaimed)
            if claims or reclaimed.has_suspects:
                return claims
        at_once = self._cost.cheap_size
        claims = self._queue.claim(CALL_PRIORITIES, room, block=True, at_once=at_once)
        self._absence.over()
        return self._in_hand.add(claims)

    def _next_suspect(self) -> list[Claim]:
        # A worker was lost with this job in hand. If it was the job's fault, it must
        # not take others along the next time: it gets this worker for itself.
        self._operations.hold()
        if not self._in_hand.wait_until_empty(WAIT_S):
            return []
        return self._noted(self._queue.reclaim(room=0, take_suspect=True))

    def _noted(self, reclaimed: Reclaimed) -> list[Claim]:
        self._has_suspects = reclaimed.has_suspects
        self._reclaim_at = time.monotonic() + RECLAIM_PERIOD_S
        claims = self._in_hand.add(reclaimed.claims)
        if not self._has_suspects:
            # Only now: a suspect that is in hand keeps operations out by itself.
            self._operations.release()
        return claims

    def _take(self, claims: Sequence[Claim]) -> None:
        good = []
        for claim in claims:
            if claim.attempt > 1:
                REDELIVERIES.add(self._queue.model)
                log.warning("job taken over", **fields_of(claim))
            if claim.attempt >= self._max_deliveries:
                self._quarantine(claim)
            else:
                good.append(claim)
        if good:
            self._decoders.submit(good)

    def _quarantine(self, claim: Claim) -> None:
        deliveries = claim.attempt - 1
        log.error("job set aside", deliveries=deliveries, **fields_of(claim))
        error = JobPoisoned(f"{deliveries} workers were lost while they held this image")
        _, reply, _ = failed(self._queue.worker, claim, error)
        letter = DeadLetter(job=claim.job, deliveries=deliveries, reason=error.reason)
        try:
            self._queue.quarantine(claim, reply, letter, self._dead_letter_max_bytes)
        except BrokerUnavailable as error:
            log.warning(
                "broker unavailable; the job comes back", error=str(error), **fields_of(claim)
            )
        else:
            IMAGES.add(self._queue.model, "poisoned")
            if tracing.tracer is not None:
                waited_s = (self._queue.now_ms() - claim.enqueued_ms) / 1000
                job_spans.waited(tracing.tracer, claim, waited_s, reason=JobPoisoned.reason)
        self._in_hand.remove([claim])
