"""Drops jobs that nobody waits for any more, before work is spent on them."""

import structlog

from dispatch.jobs import Claim
from dispatch.work_queue import WorkQueue
from telemetry import tracing
from telemetry.metrics import Stage, Unwanted, count_avoided
from worker import job_spans
from worker.in_hand import InHand
from worker.job_fields import fields_of
from worker.publisher import Publisher
from worker.replies import expired

log = structlog.get_logger()


class Sieve:
    """Asked before a job is decoded and again before it is inferred; counts what nobody wants."""

    def __init__(self, queue: WorkQueue, in_hand: InHand, publisher: Publisher) -> None:
        self._queue = queue
        self._in_hand = in_hand
        self._publisher = publisher

    def passes(self, claim: Claim, stage: Stage) -> bool:
        """Return whether somebody still waits for this job; if nobody does, it is over."""
        if self._in_hand.is_given_back(claim):
            # Its work is done elsewhere: none is avoided.
            self._in_hand.remove([claim])
            return False
        is_late = self._queue.now_ms() >= claim.deadline_ms
        if self._in_hand.is_lost(claim):
            self._in_hand.remove([claim])
        elif is_late:
            self._publisher.publish([expired(self._queue.worker, claim)])
        else:
            return True
        # Its front-end may have been the first to see that it is late.
        cause: Unwanted = "expired" if is_late else "cancelled"
        count_avoided(self._queue.model, stage, cause)
        log.debug("job dropped", before=stage, cause=cause, **fields_of(claim))
        if tracing.tracer is not None and stage == "decode":
            waited_s = (self._queue.now_ms() - claim.enqueued_ms) / 1000
            job_spans.waited(tracing.tracer, claim, waited_s, reason=cause.upper())
        return False
