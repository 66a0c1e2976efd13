"""Decodes images while the model works on others."""

import itertools
import queue
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from dispatch.errors import InferenceFailed, InvalidImage
from dispatch.jobs import Claim, Priority
from dispatch.work_queue import WorkQueue
from telemetry import tracing
from telemetry.metrics_catalogue import DECODE_SECONDS, QUEUE_SECONDS
from worker import job_spans
from worker.batching import Prepared, ReadyQueue
from worker.engine import UInt8Array
from worker.job_fields import fields_of
from worker.publisher import Publisher
from worker.quickness import Quickness
from worker.replies import failed, not_inferred
from worker.sieve import Sieve

log = structlog.get_logger()

_RANKS: Final = {priority: rank for rank, priority in enumerate(Priority)}
_END_RANK: Final = -1


class Decoders:
    """Images that wait to be decoded, highest priority first.

    Any number of threads `run` it. Without any, the model's thread decodes what it needs next with
    `decode_one`: where each core has a process whose model is busy, threads that decode beside it
    only take its core away in the middle of an inference, and its caches with it.
    """

    def __init__(
        self,
        store: WorkQueue,
        sieve: Sieve,
        ready: ReadyQueue,
        publisher: Publisher,
        decode: Callable[[bytes], UInt8Array],
    ) -> None:
        """Decode nothing yet.

        Args:
            store: knows the time and the name of this worker.
            sieve: drops what need not be decoded.
            ready: where decoded images go.
            publisher: where answers go that need no model.
            decode: encoded image to pixels; raises `InvalidImage`.
        """
        self._store = store
        self._sieve = sieve
        self._ready = ready
        self._publisher = publisher
        self._decode = decode
        self._numbers = itertools.count()
        self._waiting: queue.PriorityQueue[tuple[int, int, Claim | None]] = queue.PriorityQueue()
        self._is_closed = False
        self._quick = Quickness()
        self._run_ready = ready.nudge

    def then(self, run_ready: Callable[[], None]) -> None:
        """Let whoever submits what is decoded at once run what is ready, too.

        Args:
            run_ready: runs it, or wakes who does.
        """
        self._run_ready = run_ready

    def submit(self, claims: Sequence[Claim]) -> None:
        """Decode these soon, or at once as long as that usually takes no time."""
        for claim in claims:
            self._ready.expect(claim)
        items: list[Prepared] = []
        for claim in claims:
            # Asked each time: among small images there may be large ones, which are for many
            # threads.
            if self._quick:
                items += self._prepared(claim)
            else:
                # The number keeps the order within a priority.
                self._waiting.put((_RANKS[claim.priority], next(self._numbers), claim))
        if items:
            self._ready.put(items, quietly=True)
            self._run_ready()
        if self.has_waiting():
            self._ready.wake_for_undecoded()

    def close(self) -> None:
        """Decode no more."""
        self._is_closed = True
        self._waiting.put((_END_RANK, next(self._numbers), None))

    def has_waiting(self) -> bool:
        """Return whether images wait to be decoded."""
        return not (self._is_closed or self._waiting.empty())

    def decode_one(self) -> None:
        """Decode the image that is first, if one waits, in the thread of the caller."""
        if self.has_waiting():
            # The only one who takes any, so this does not block.
            _, _, claim = self._waiting.get()
            if claim is not None:
                self._ready.put(self._prepared(claim))

    def run(self) -> None:
        """Decode until closed."""
        while (claim := self._waiting.get()[-1]) is not None:
            self._ready.put(self._prepared(claim))
        self.close()  # for the next thread

    def _prepared(self, claim: Claim) -> list[Prepared]:
        """Return what the model gets of a claim: its image, or nothing."""
        item = self._decoded(claim) if self._sieve.passes(claim, "decode") else None
        if item is None:
            self._ready.give_up(claim)
            return []
        return [item]

    def _decoded(self, claim: Claim) -> Prepared | None:
        started = time.monotonic()
        queued_us = round((self._store.now_ms() - claim.enqueued_ms) * 1000)
        QUEUE_SECONDS.observe(max(0, queued_us) / 1e6, self._store.model)
        if tracing.tracer is not None:
            job_spans.waited(tracing.tracer, claim, queued_us / 1e6)
        pixels, failure, reason = None, None, ""
        try:
            pixels = self._decode(claim.image)
        except InvalidImage as error:
            failure, reason = failed(self._store.worker, claim, error), error.reason
        except Exception:
            log.exception("decoder failed", **fields_of(claim))
            failure, reason = not_inferred(self._store.worker, claim), InferenceFailed.reason
        decode_s = time.monotonic() - started
        self._quick.note(decode_s)
        if tracing.tracer is not None:
            job_spans.decoded(tracing.tracer, claim, decode_s, reason=reason)
        if failure is not None:
            self._publisher.publish([failure])
        if pixels is None:
            return None
        DECODE_SECONDS.observe(decode_s, self._store.model)
        return Prepared(claim, pixels, max(0, queued_us), round(decode_s * 1e6))
