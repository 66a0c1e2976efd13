"""The one task that writes jobs to Redis, many in one round trip."""

import asyncio
from collections import deque

import structlog

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.job_store import Cancel, Enqueue, JobStore, Operation
from dispatch.jobs import Outcome, Submission
from dispatch.link import Link
from server.pending import PendingReplies

log = structlog.get_logger()

FLUSH_JOBS = 64
FLUSH_BYTES = 8 * 1024 * 1024
"""At most one image above this goes into one round trip, so that small ones are not held up."""

RECONNECT_PAUSE_S = 0.1


class Writer:
    """Sends what callers ask for, in order, and repeats what may not have arrived.

    Its methods only touch memory; `run` talks to Redis, so a caller that goes away
    cannot break a connection.
    """

    def __init__(self, store: JobStore, link: Link, pending: PendingReplies) -> None:
        self._store = store
        self._link = link
        self._pending = pending
        self._waiting: deque[Operation] = deque()
        self._unsettled: list[Operation] = []
        self._wanted = asyncio.Event()
        self._wanted.set()  # begin by connecting
        link.on_change(self._wanted.set)

    def enqueue(self, submission: Submission) -> None:
        """Send a job soon; a refusal reaches its waiter.

        Raises:
            BrokerUnavailable: Redis is known to be away.
        """
        if not self._link.is_up:
            raise BrokerUnavailable("the broker cannot be reached")
        self._put(Enqueue(submission))

    def enqueue_again(self, submission: Submission) -> None:
        """Send a job that was accepted once and then lost; it is not refused meanwhile."""
        self._unsettled.append(Enqueue(submission))
        self._wanted.set()

    def cancel(self, submission: Submission, outcome: Outcome) -> None:
        """Retire a job soon that nobody waits for any more."""
        self._put(Cancel(submission, outcome))

    def _put(self, operation: Operation) -> None:
        self._waiting.append(operation)
        self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._link.is_up:
                await self._reconnect()
            while self._link.is_up and (self._unsettled or self._waiting):
                await self._flush()

    async def _reconnect(self) -> None:
        while True:
            self._refuse_unsent()
            try:
                for complaint in await self._store.complaints():
                    log.warning("broker settings", complaint=complaint)
            except (BrokerUnavailable, OutcomeUnknown):
                await asyncio.sleep(RECONNECT_PAUSE_S)
            else:
                self._link.restored()
                log.info("broker reached")
                return

    def _refuse_unsent(self) -> None:
        # What was never sent is refused now; a cancel waits, its job may be in Redis.
        error = BrokerUnavailable("the broker cannot be reached")
        kept = [each for each in self._waiting if isinstance(each, Cancel)]
        for operation in self._waiting:
            if isinstance(operation, Enqueue):
                self._pending.fail(operation.submission.job.id, error)
        self._waiting = deque(kept)

    async def _flush(self) -> None:
        # What may have arrived before goes first: a cancel must not overtake its job.
        unsettled = [each for each in self._unsettled if self._is_wanted(each)]
        self._unsettled = []
        fresh = self._next_fresh()
        operations = unsettled + fresh
        try:
            refusals = await self._store.send(operations)
        except BrokerUnavailable:
            self._unsettled = unsettled + self._unsettled
            self._waiting.extendleft(reversed(fresh))
            self._link.lost()
            log.warning("broker lost", unsettled=len(unsettled), unsent=len(fresh))
        except OutcomeUnknown:
            self._unsettled = operations + self._unsettled
            self._link.lost()
            log.warning("broker lost", unsettled=len(operations))
        else:
            for operation, refusal in zip(operations, refusals, strict=True):
                if refusal is not None:
                    self._pending.fail(operation.submission.job.id, refusal)

    def _next_fresh(self) -> list[Operation]:
        batch: list[Operation] = []
        size = 0
        while self._waiting and len(batch) < FLUSH_JOBS and size < FLUSH_BYTES:
            operation = self._waiting.popleft()
            if self._is_wanted(operation):
                batch.append(operation)
                if isinstance(operation, Enqueue):
                    size += len(operation.submission.image)
        return batch

    def _is_wanted(self, operation: Operation) -> bool:
        return isinstance(operation, Cancel) or self._pending.is_waiting(
            operation.submission.job.id
        )
