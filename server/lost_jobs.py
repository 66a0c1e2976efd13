"""Asks after calls that wait long, and sends their jobs again if Redis lost them.

A failover or a power cut can take back the last moments of what Redis had
acknowledged: a job, or its reply. A prediction is pure, and the caller still
waits, so the job is simply enqueued once more.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.job_store import JobStore
from server.pending import PendingReplies, Waiter
from server.writer import Writer

log = structlog.get_logger()

PERIOD_S: Final = 3.0
ASK_AFTER_S: Final = 5.0
ASK_COUNT: Final = 256
"""Most jobs asked after in one script call, which blocks Redis while it runs."""


class LostJobs:
    """Looks every few seconds; acts on what was missing twice, as a reply may be on its way."""

    def __init__(self, store: JobStore, pending: PendingReplies, writer: Writer) -> None:
        self._store = store
        self._pending = pending
        self._writer = writer

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.look()
            except (BrokerUnavailable, OutcomeUnknown):
                continue  # the writer knows, and reconnects

    async def look(self) -> None:
        """Ask once after all who have waited for long.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        by_model: dict[str, list[Waiter]] = {}
        for waiter in self._pending.waiting_longer_than(ASK_AFTER_S):
            by_model.setdefault(waiter.submission.job.model, []).append(waiter)
        for model, waiters in by_model.items():
            for first in range(0, len(waiters), ASK_COUNT):
                await self._look_after(model, waiters[first : first + ASK_COUNT])

    async def _look_after(self, model: str, waiters: Sequence[Waiter]) -> None:
        by_id = {waiter.submission.job.id: waiter for waiter in waiters}
        missing = set(await self._store.missing(model, list(by_id)))
        for job_id, waiter in by_id.items():
            if job_id not in missing:
                waiter.was_missed = False
            elif not waiter.was_missed:
                waiter.was_missed = True
            elif self._pending.is_waiting(job_id):
                log.warning("lost job sent again", request_id=waiter.submission.job.request_id)
                waiter.was_missed = False
                await self._store.forget_enqueue(model, job_id)
                self._writer.enqueue_again(waiter.submission)
