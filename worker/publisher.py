"""Publishes replies, and goes on trying in a thread of its own while Redis is away."""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Final

import structlog

from despacho.job.v1.job_pb2 import Reply
from dispatch.errors import BrokerUnavailable
from dispatch.jobs import Claim, Completion, Outcome, Place
from dispatch.retiring import Ended
from dispatch.work_queue import WorkQueue
from telemetry.absence import Absence
from telemetry.metrics import count_wasted
from telemetry.metrics_catalogue import IMAGES, REDIS_BROKEN, REDIS_ROUND_TRIP
from worker.in_hand import InHand
from worker.job_fields import fields_of
from worker.worker_metrics import outcome_of

log = structlog.get_logger()

PAUSE_S: Final = 0.1
"""Between tries while Redis is away."""


class Publisher:
    """Repeats until Redis has it; an answer is not computed twice for a lost connection."""

    def __init__(self, store: WorkQueue, in_hand: InHand) -> None:
        self._store = store
        self._in_hand = in_hand
        self._waiting: queue.SimpleQueue[list[Ended] | None] = queue.SimpleQueue()
        self._tried: set[Place] = set()
        """Of those that wait and were tried before."""

        self._is_stopping = threading.Event()
        self._absence = Absence("replies")

    def publish(self, ended: Sequence[Ended]) -> None:
        """Send these replies soon; the jobs leave the hand when Redis has them."""
        if ended:
            self._waiting.put(list(ended))

    def publish_now(self, ended: Sequence[Ended]) -> None:
        """Send these replies and wait until Redis has them, or `stop` is called.

        For a caller who waits less for Redis than it takes to wake the thread of `run`.
        """
        while ended and not self._try(ended):
            if self._is_stopping.wait(PAUSE_S):
                return

    def publish_and_look(self, ended: Sequence[Ended], *, looks: bool = True) -> None:
        """Send these replies and, in the same round trip, ask what else in hand is still wanted.

        If Redis cannot be reached the replies are sent later, and nothing is found out.

        Args:
            ended: the replies; none: only ask.
            looks: whether to ask.
        """
        if not self._try(ended, looks=looks):
            self.publish(ended)

    def run(self) -> None:
        """Publish until stopped."""
        while (ended := self._next()) is not None:
            self.publish_now(ended)

    def stop(self) -> None:
        """Publish no more than what can be published now."""
        self._is_stopping.set()
        self._waiting.put(None)

    def _next(self) -> list[Ended] | None:
        ended = self._waiting.get()
        while ended is not None and not self._waiting.empty():
            more = self._waiting.get()
            if more is None:
                self._waiting.put(None)
                break
            ended += more
        return ended

    def _try(self, ended: Sequence[Ended], *, looks: bool = False) -> bool:
        over = {claim.place for claim, _, _ in ended}
        left = self._in_hand.snapshot() if looks else []
        began_s = time.monotonic()
        try:
            completions, lost = self._store.complete_and_renew(
                ended, [claim for claim in left if claim.place not in over]
            )
        except BrokerUnavailable as error:
            if ended:
                REDIS_BROKEN.add("complete")
                self._absence.noticed(error, kept=len(ended))
                self._tried |= over
                self._in_hand.note_unsent(over)
            return False
        self._in_hand.mark_lost(lost)
        if ended:
            self._absence.over()
            REDIS_ROUND_TRIP.observe(time.monotonic() - began_s, "complete")
            self._note(ended, completions)
        return True

    def _note(self, ended: Sequence[Ended], completions: Sequence[Completion]) -> None:
        self._in_hand.remove([claim for claim, _, _ in ended])
        # Looked at once, as to collect what a line says takes longer than not to write it.
        is_told = log.is_enabled_for(logging.DEBUG)
        for (claim, reply, outcome), completion in zip(ended, completions, strict=True):
            IMAGES.add(self._store.model, outcome_of(reply, outcome))
            if is_told:
                log.debug("job", **_line(claim, reply, outcome, completion))
            if outcome is Outcome.COMPLETED:
                self._count_waste(completion, is_first_try=claim.place not in self._tried)
            self._tried.discard(claim.place)

    def _count_waste(self, completion: Completion, *, is_first_try: bool) -> None:
        if completion is Completion.ORPHANED:
            count_wasted(self._store.model, "orphaned")
        elif completion is Completion.TOO_LATE and is_first_try:
            # At a later try it may be ourselves who were first.
            count_wasted(self._store.model, "too_late")


def _line(
    claim: Claim, reply: Reply, outcome: Outcome, completion: Completion
) -> dict[str, object]:
    """Return what the log says of a job that is over, like the line of its call."""
    answer = reply.answer
    return {
        **fields_of(claim),
        "outcome": outcome.value,
        "completion": completion.name.lower(),
        "reason": reply.failure.reason,
        "queue_ms": answer.queue_us / 1000,
        "decode_ms": answer.decode_us / 1000,
        "inference_ms": answer.inference_us / 1000,
        "batch_size": answer.batch_size,
    }
