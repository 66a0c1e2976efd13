"""The calls that wait for a reply: who, until when, and how many."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from despacho.job.v1.job_pb2 import Reply
from dispatch.errors import DespachoError, ExpiredInQueue, QueueFull
from dispatch.jobs import Submission
from telemetry.metrics_catalogue import LATE_REPLIES

TIMER_RESOLUTION_S = 0.001


@dataclass(slots=True, eq=False)
class Waiter:
    """One call that waits, from entering the context until leaving it.

    A context manager of its own, as one made from a generator takes twice the time.
    """

    submission: Submission
    table: "PendingReplies"
    reply: "asyncio.Future[Reply]"
    since: float = field(default_factory=time.monotonic)
    """When it began to wait, seconds of the monotonic clock."""

    was_missed: bool = False
    """Whether the last look at Redis found its job neither waiting nor claimed."""

    def __enter__(self) -> "asyncio.Future[Reply]":
        self.table.add(self)
        return self.reply

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.table.remove(self)


class PendingReplies:
    """Table of waiters by job id, with one timer for all deadlines."""

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        """Limit what this process waits for.

        Args:
            max_jobs: most calls that wait.
            max_bytes: most bytes of their images.
        """
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._waiters: dict[str, Waiter] = {}
        self._bytes = 0
        self._deadlines: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._waiters)

    @property
    def size_bytes(self) -> int:
        """How many bytes the images of those calls have."""
        return self._bytes

    def expect(self, submission: Submission) -> Waiter:
        """Return what waits for the reply to `submission` while its context lasts.

        The future raises `ExpiredInQueue` at `submission.answer_by`, or what `fail` is given.

        Raises:
            QueueFull: this process waits for as much as it may.
        """
        size = len(submission.image)
        if len(self._waiters) >= self._max_jobs:
            raise QueueFull("server/jobs", "this server waits for as many images as it may")
        if self._waiters and self._bytes + size > self._max_bytes:
            raise QueueFull("server/bytes", "this server holds as many bytes of images as it may")
        return Waiter(submission, self, asyncio.get_running_loop().create_future())

    def add(self, waiter: Waiter) -> None:
        """Begin to wait; a waiter does it."""
        submission = waiter.submission
        job_id = submission.job.id
        self._waiters[job_id] = waiter
        self._bytes += len(submission.image)
        heapq.heappush(self._deadlines, (submission.answer_by, next(self._order), job_id))
        self._wake_at_first_deadline()

    def remove(self, waiter: Waiter) -> None:
        """Wait no longer; a waiter does it."""
        del self._waiters[waiter.submission.job.id]
        self._bytes -= len(waiter.submission.image)
        reply = waiter.reply
        if not reply.cancel() and not reply.cancelled():
            reply.exception()  # seen, even if the caller left in the same moment
        # Deadlines of calls that were answered stay in the heap until they come;
        # with long ones that is a leak, so now and then they are thrown out.
        if len(self._deadlines) > 2 * len(self._waiters) + 1024:
            self._deadlines = [each for each in self._deadlines if each[2] in self._waiters]
            heapq.heapify(self._deadlines)

    def deliver(self, reply: Reply) -> bool:
        """Hand over a reply; False when nobody waits for it, which is normal and counted."""
        waiter = self._waiters.get(reply.job_id)
        if waiter is None or waiter.reply.done():
            LATE_REPLIES.add()
            return False
        waiter.reply.set_result(reply)
        return True

    def fail(self, job_id: str, error: DespachoError) -> None:
        """Let the call that waits for a job, if it still does, raise `error`."""
        waiter = self._waiters.get(job_id)
        if waiter is not None and not waiter.reply.done():
            waiter.reply.set_exception(error)

    def fail_all(self, error: Callable[[], DespachoError]) -> None:
        """Let all calls that wait raise an error of their own."""
        for job_id in list(self._waiters):
            self.fail(job_id, error())

    def is_waiting(self, job_id: str) -> bool:
        """Return whether a call still waits for this job."""
        waiter = self._waiters.get(job_id)
        return waiter is not None and not waiter.reply.done()

    def waits_for(self, model: str) -> bool:
        """Return whether any call waits for a reply of this model."""
        return any(each.submission.job.model == model for each in self._waiters.values())

    def waiting_longer_than(self, seconds: float) -> list[Waiter]:
        """Return those who have waited that long, the oldest first."""
        since = time.monotonic() - seconds
        return [
            waiter
            for waiter in itertools.takewhile(
                lambda waiter: waiter.since <= since, self._waiters.values()
            )
            if not waiter.reply.done()
        ]

    def _wake_at_first_deadline(self) -> None:
        first = self._deadlines[0][0]
        if self._timer is not None:
            if self._timer_at <= first:
                return
            self._timer.cancel()
        self._timer_at = first
        delay_s = max(0.0, first - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._timer = None
        # A timer may fire within its resolution before its time.
        now = time.monotonic() + TIMER_RESOLUTION_S
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, job_id = heapq.heappop(self._deadlines)
            self.fail(job_id, ExpiredInQueue("no worker answered before the deadline"))
        if self._deadlines:
            self._wake_at_first_deadline()
