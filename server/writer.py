"""The one task that writes jobs to Redis, many in one round trip."""

import asyncio
import time
from collections import deque
from contextlib import suppress

import structlog

from dispatch.errors import BrokerUnavailable, DespachoError, OutcomeUnknown
from dispatch.job_store import Cancel, Enqueue, JobStore, Operation
from dispatch.jobs import Outcome, Submission
from dispatch.link import Link
from server.pending import PendingReplies
from telemetry.metrics_catalogue import REDIS_BROKEN, REDIS_ROUND_TRIP

log = structlog.get_logger()

FLUSH_JOBS = 64
FLUSH_BYTES = 8 * 1024 * 1024
"""At most one image above this goes into one round trip, so that small ones are not held up."""

RETRY_PAUSE_S = 0.1

SEND_WITHIN_S = 0.8
"""A job that could not even be sent by then is refused: callers hear within 1 s."""


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
        self._unsettled: deque[Operation] = deque()
        self._refused: deque[Cancel] = deque()
        self._complaints: list[str] = []
        self._wanted = asyncio.Event()
        self._wanted.set()  # begin by connecting
        link.on_change(self._note_link)
        self._is_idle = asyncio.Event()
        self._refusal: asyncio.TimerHandle | None = None
        self._repeat: asyncio.TimerHandle | None = None

    def enqueue(self, submission: Submission) -> None:
        """Send a job soon; a refusal reaches its waiter.

        Raises:
            BrokerUnavailable: Redis is known to be away.
        """
        if not self._link.is_up:
            raise BrokerUnavailable("the broker cannot be reached")
        self._put(Enqueue(submission))
        if self._refusal is None:
            loop = asyncio.get_running_loop()
            self._refusal = loop.call_later(SEND_WITHIN_S, self._refuse_overdue)

    def enqueue_again(self, submission: Submission) -> None:
        """Send a job that was accepted once and then lost; it is not refused meanwhile."""
        self._unsettled.append(Enqueue(submission, is_again=True))
        self._is_idle.clear()
        self._wanted.set()

    def cancel(self, submission: Submission, outcome: Outcome) -> None:
        """Retire a job soon that nobody waits for any more."""
        self._put(Cancel.of(submission, outcome))

    def _put(self, operation: Operation) -> None:
        self._waiting.append(operation)
        self._is_idle.clear()
        self._wanted.set()

    def _note_link(self) -> None:
        # At once, as the task may be busy with what it sent last.
        if not self._link.is_up:
            self._refuse_unsent()
        self._wanted.set()

    async def settle(self, limit_s: float) -> None:
        """Wait until all is sent: jobs of callers that are gone should not stay behind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._is_idle.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._link.is_up:
                await self._reconnect()
            while self._link.is_up and (self._unsettled or self._waiting):
                await self._flush()
            if not (self._unsettled or self._waiting or self._refused):
                self._is_idle.set()

    async def _reconnect(self) -> None:
        is_first_try = True
        while not self._link.is_up:
            self._refuse_unsent()
            try:
                complaints = await self._store.complaints()
            except (BrokerUnavailable, OutcomeUnknown) as error:
                if is_first_try:
                    log.warning("broker unreachable", error=str(error), cause=str(error.__cause__))
                is_first_try = False
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                self._link.restored()
                log.info("broker reached")
                self._tell(complaints)

    def _tell(self, complaints: list[str]) -> None:
        if complaints != self._complaints:
            self._complaints = complaints
            for complaint in complaints:
                log.warning("broker settings", complaint=complaint)

    def _refuse_unsent(self, *, older_than_s: float = 0.0) -> None:
        # What was never sent is refused; a cancel waits, its job may be in Redis.
        since = time.monotonic() - older_than_s
        operations = list(self._waiting)
        self._waiting.clear()
        for operation in operations:
            if isinstance(operation, Enqueue) and operation.since <= since:
                error = BrokerUnavailable("the broker cannot be reached")
                self._pending.fail(operation.submission.job.id, error)
            else:
                self._waiting.append(operation)

    def _refuse_overdue(self) -> None:
        """Refuse what waits behind a send that takes too long, and look again later."""
        self._refuse_unsent(older_than_s=SEND_WITHIN_S)
        waiting = [each.since for each in self._waiting if isinstance(each, Enqueue)]
        self._refusal = None
        if waiting:
            delay_s = max(0.0, min(waiting) + SEND_WITHIN_S - time.monotonic())
            loop = asyncio.get_running_loop()
            self._refusal = loop.call_later(delay_s, self._refuse_overdue)

    async def _flush(self) -> None:
        # What may have arrived before goes first and alone: a cancel must not overtake
        # its job, and after a break the first thing sent should not be large.
        source = self._unsettled or self._waiting
        operations = self._next_batch(source)
        if not operations:
            return
        began_s = time.monotonic()
        try:
            refusals = await self._store.send(operations)
        except BrokerUnavailable as error:
            # To where they came from: what was never sent will be refused.
            source.extendleft(reversed(operations))
            self._lose(error, len(operations))
        except OutcomeUnknown as error:
            self._unsettled.extendleft(reversed(operations))
            self._lose(error, len(operations))
        else:
            REDIS_ROUND_TRIP.observe(time.monotonic() - began_s, "write")
            for operation, refusal in zip(operations, refusals, strict=True):
                if isinstance(operation, Cancel):
                    self._note_cancel(operation, is_refused=refusal is not None)
                # One that is sent again is looked for, and sent again, until its deadline.
                elif refusal is not None and not operation.is_again:
                    self._refuse(operation.submission, refusal)

    def _note_cancel(self, cancel: Cancel, *, is_refused: bool) -> None:
        if not is_refused:
            self._waiting.extend(self._refused)
            self._refused.clear()
            return
        # Forgotten, its job would be computed for nobody once Redis takes writes again.
        self._refused.append(cancel)
        if self._repeat is None:
            loop = asyncio.get_running_loop()
            self._repeat = loop.call_later(RETRY_PAUSE_S, self._repeat_refused)

    def _repeat_refused(self) -> None:
        self._repeat = None
        self._refused = deque(cancel for cancel in self._refused if not cancel.is_over)
        if self._refused:
            # One tells whether Redis takes writes again. All of them, which may be thousands,
            # would hold up those who are to hear that it does not.
            self._waiting.append(self._refused.popleft())
        self._wanted.set()

    def _lose(self, error: DespachoError, count: int) -> None:
        REDIS_BROKEN.add("write")
        self._link.lost()
        log.warning("broker lost", operations=count, error=str(error), cause=str(error.__cause__))

    def _refuse(self, submission: Submission, refusal: DespachoError) -> None:
        if refusal.__cause__ is not None:
            log.error("broker refused", model=submission.job.model, cause=str(refusal.__cause__))
        self._pending.fail(submission.job.id, refusal)

    def _next_batch(self, source: deque[Operation]) -> list[Operation]:
        batch: list[Operation] = []
        size = 0
        while source and len(batch) < FLUSH_JOBS and size < FLUSH_BYTES:
            operation = source.popleft()
            if isinstance(operation, Cancel):
                batch.append(operation)
            elif self._pending.is_waiting(operation.submission.job.id):
                batch.append(operation)
                size += len(operation.submission.image)
        return batch
