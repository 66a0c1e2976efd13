"""Drops jobs that nobody waits for any more, before work is spent on them."""

from dispatch.jobs import Claim
from dispatch.work_queue import WorkQueue
from telemetry.metrics import Stage, count_avoided
from worker.in_hand import InHand
from worker.publisher import Publisher
from worker.replies import expired


class Sieve:
    """Asked before a job is decoded and again before it is inferred; counts what it drops."""

    def __init__(self, queue: WorkQueue, in_hand: InHand, publisher: Publisher) -> None:
        self._queue = queue
        self._in_hand = in_hand
        self._publisher = publisher

    def passes(self, claim: Claim, stage: Stage) -> bool:
        """Return whether somebody still waits for this job; if nobody does, it is over."""
        is_late = self._queue.now_ms() >= claim.deadline_ms
        if self._in_hand.is_lost(claim):
            self._in_hand.remove([claim])
        elif is_late:
            self._publisher.publish([expired(self._queue.worker, claim)])
        else:
            return True
        # Its front-end may have been the first to see that it is late.
        count_avoided(self._queue.model, stage, "expired" if is_late else "cancelled")
        return False
