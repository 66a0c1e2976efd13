"""Takes jobs from the queue and decodes them while the model works on others."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import structlog

from despacho.job.v1.job_pb2 import DeadLetter
from dispatch.errors import BrokerUnavailable, InvalidImage, JobPoisoned
from dispatch.jobs import Claim
from dispatch.work_queue import Reclaimed, WorkQueue
from worker.batching import Prepared, ReadyQueue
from worker.engine import UInt8Array
from worker.in_hand import InHand
from worker.publisher import Publisher
from worker.replies import expired, failed, not_inferred

log = structlog.get_logger()

RECLAIM_PERIOD_S: Final = 0.5
WAIT_S: Final = 0.5
"""How long to wait for room before looking around again."""

PAUSE_S: Final = 0.2
"""Between tries while Redis is away."""


class Intake:
    """Claims and decodes until stopped."""

    def __init__(
        self,
        queue: WorkQueue,
        in_hand: InHand,
        ready: ReadyQueue,
        publisher: Publisher,
        decode: Callable[[bytes], UInt8Array],
        *,
        decode_threads: int,
        max_deliveries: int,
        dead_letter_max_bytes: int,
    ) -> None:
        """Claim nothing yet.

        Args:
            queue: where jobs come from.
            in_hand: what this worker holds.
            ready: where decoded images go.
            publisher: where answers go that need no model.
            decode: encoded image to pixels; raises `InvalidImage`.
            decode_threads: images decoded at once.
            max_deliveries: the delivery at which a job is set aside instead of run.
            dead_letter_max_bytes: most bytes of jobs set aside.
        """
        self._queue = queue
        self._in_hand = in_hand
        self._ready = ready
        self._publisher = publisher
        self._decode = decode
        self._max_deliveries = max_deliveries
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._stopping = threading.Event()
        self._reclaim_at = 0.0
        self._has_suspects = False
        self._fault: BaseException | None = None

    def run(self) -> None:
        """Take jobs in until stopped."""
        while not self._stopping.is_set():
            if self._fault is not None:
                raise self._fault
            try:
                for claim in self._next_claims():
                    self._take(claim)
            except BrokerUnavailable as error:
                # What was claimed stays pending in Redis and is reclaimed.
                log.warning("broker unavailable", error=str(error))
                self._stopping.wait(PAUSE_S)

    def stop(self) -> None:
        """Claim no more; what is in hand is still decoded."""
        self._stopping.set()

    def close(self) -> None:
        """Decode no more."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _next_claims(self) -> list[Claim]:
        if self._has_suspects:
            return self._next_suspect()
        room, room_bytes = self._in_hand.wait_for_room(WAIT_S)
        if room == 0:
            return []
        if time.monotonic() >= self._reclaim_at:
            reclaimed = self._queue.reclaim(room=room, take_suspect=False)
            claims = self._noted(reclaimed)
            if claims or reclaimed.has_suspects:
                return claims
        return self._in_hand.add(self._queue.claim(room, room_bytes=room_bytes, block=True))

    def _next_suspect(self) -> list[Claim]:
        # A worker was lost with this job in hand. If it was the job's fault, it must
        # not take others along the next time: it gets this worker for itself.
        if not self._in_hand.wait_until_empty(WAIT_S):
            return []
        return self._noted(self._queue.reclaim(room=0, take_suspect=True))

    def _noted(self, reclaimed: Reclaimed) -> list[Claim]:
        self._has_suspects = reclaimed.has_suspects
        self._reclaim_at = time.monotonic() + RECLAIM_PERIOD_S
        return self._in_hand.add(reclaimed.claims)

    def _take(self, claim: Claim) -> None:
        if claim.attempt >= self._max_deliveries:
            self._quarantine(claim)
        elif self._is_expired(claim):
            self._publisher.publish([expired(self._queue.worker, claim)])
        else:
            self._ready.expect()
            self._decoders.submit(self._prepare, claim).add_done_callback(self._note_fault)

    def _quarantine(self, claim: Claim) -> None:
        deliveries = claim.attempt - 1
        log.error("job set aside", request_id=claim.job.request_id, deliveries=deliveries)
        error = JobPoisoned(f"{deliveries} workers were lost while they held this image")
        _, reply, _ = failed(self._queue.worker, claim, error)
        letter = DeadLetter(job=claim.job, deliveries=deliveries, reason=error.reason)
        try:
            self._queue.quarantine(claim, reply, letter, self._dead_letter_max_bytes)
        except BrokerUnavailable as error:
            log.warning("broker unavailable; the job comes back", error=str(error))
        self._in_hand.remove([claim])

    def _note_fault(self, done: Future[None]) -> None:
        # Nobody else looks at what a decoding thread raises; `run` does.
        if not done.cancelled() and (fault := done.exception()) is not None:
            self._fault = fault

    def _prepare(self, claim: Claim) -> None:
        item = None if self._is_unwanted(claim) else self._decoded(claim)
        if item is None:
            self._ready.give_up()
        else:
            self._ready.put(item)

    def _decoded(self, claim: Claim) -> Prepared | None:
        started = time.monotonic()
        queued_us = round((self._queue.now_ms() - claim.enqueued_ms) * 1000)
        try:
            pixels = self._decode(claim.image)
        except InvalidImage as error:
            self._publisher.publish([failed(self._queue.worker, claim, error)])
        except Exception:
            log.exception("decoder failed", request_id=claim.job.request_id)
            self._publisher.publish([not_inferred(self._queue.worker, claim)])
        else:
            decode_us = round((time.monotonic() - started) * 1e6)
            return Prepared(claim, pixels, max(0, queued_us), decode_us)
        return None

    def _is_unwanted(self, claim: Claim) -> bool:
        if self._in_hand.is_lost(claim):
            self._in_hand.remove([claim])
            return True
        if self._is_expired(claim):
            self._publisher.publish([expired(self._queue.worker, claim)])
            return True
        return False

    def _is_expired(self, claim: Claim) -> bool:
        return self._queue.now_ms() >= claim.deadline_ms
