"""From a validated request to its reply: register, send, wait."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from despacho.job.v1.job_pb2 import Job, Reply
from dispatch import errors
from dispatch.jobs import Outcome, Priority, Submission
from server.deadline import with_margin
from server.failures import error_of
from server.fleet import Fleet
from server.ids import new_id
from server.pending import PendingReplies
from server.room import room_in_s
from server.tally import TALLY
from server.writer import Writer

STAYS_FULL_S: Final = 0.050
STAYS_FULL_SHARE: Final = 0.05
"""How long a full queue is believed to stay full without asking Redis again: at most while
this share of it drains, so that workers never run dry for it."""


class Relay:
    """What the RPCs need of dispatch, and nothing else."""

    def __init__(
        self, fleet: Fleet, pending: PendingReplies, writer: Writer, server_id: str
    ) -> None:
        self._fleet = fleet
        self._pending = pending
        self._writer = writer
        self._server_id = server_id
        self._full: dict[str, tuple[float, str]] = {}
        """Of each model whose queue was full: until when Redis is not asked again, and what
        it said."""

    async def predict(
        self, job: Job, image: bytes, *, priority: Priority, timeout_s: float
    ) -> Reply:
        """Return the reply to `job`, which gets its id here.

        Cancelling this cancels the job.

        Args:
            job: what is asked for; `model` is the name of one that `Fleet` knows.
            image: encoded image.
            priority: which jobs it may pass.
            timeout_s: time left until the caller's deadline, seconds.

        Raises:
            QueueFull, NoWorker, ModelLoading, ModelNotFound, BrokerUnavailable:
                not accepted; see `retry_after_s`.
            ExpiredInQueue: no reply before the deadline.
            InvalidImage, InferenceFailed, JobPoisoned: what the worker said.
        """
        self._fleet.check_can_answer(job.model)
        self._check_may_have_room(job.model)
        job.id = new_id()
        job.reply_to = self._server_id
        began = time.monotonic()
        answer_by = began + with_margin(timeout_s)
        submission = Submission(job, image, priority, answer_by)
        # Wait first, send second: a fast worker may answer before the writer has
        # heard that the job was accepted. Both only touch memory here; the writer
        # task talks to Redis, so a caller that goes away cannot break a connection.
        try:
            with self._pending.expect(submission) as reply:
                self._writer.enqueue(submission)
                try:
                    answered = _answered(await reply)
                    TALLY.answered(job.model, time.monotonic() - began)
                    return answered
                except errors.ExpiredInQueue:
                    self._writer.cancel(submission, Outcome.EXPIRED)
                    raise
                except (asyncio.CancelledError, errors.Draining):
                    # Nobody waits: let no worker compute it.
                    self._writer.cancel(submission, Outcome.CANCELLED)
                    raise
                finally:
                    # What it raised knows this frame. If this frame knew it, too, the image
                    # would stay until the next collection, which is seldom.
                    del reply
        except errors.QueueFull as refusal:
            # Forgotten meanwhile, it is full all the same.
            with suppress(errors.ModelNotFound):
                refusal.retry_after_s = self._room_in_s(job.model)
                if refusal.subject == _jobs_of(job.model):
                    self._note_full(job.model, str(refusal))
            raise

    def flood(self) -> errors.QueueFull | None:
        """Return why any call would be refused now, of whichever model; None if it may not be.

        In a flood, most of the work is to receive and to read what will be refused.
        """
        if not self._full:
            return None
        now = time.monotonic()
        models = [view.card.name for view in self._fleet.models()]
        if not models:
            # Redis forgot them, or somebody did: the call is told so when it is looked at.
            return None
        if not all(now < self._full.get(model, (0.0, ""))[0] for model in models):
            return None
        model = models[0]
        return errors.QueueFull(
            _jobs_of(model), self._full[model][1], retry_after_s=self._room_in_s(model)
        )

    def give_up(self) -> None:
        """Fail all calls that still wait: this server stops now."""
        self._pending.fail_all(lambda: errors.Draining("this server stopped before an answer came"))

    def _check_may_have_room(self, model: str) -> None:
        """Refuse what Redis would refuse: in a flood, asking it is most of the work."""
        if model not in self._full:
            return
        until, message = self._full[model]
        if time.monotonic() < until:
            raise errors.QueueFull(_jobs_of(model), message, retry_after_s=self._room_in_s(model))
        del self._full[model]

    def _note_full(self, model: str, message: str) -> None:
        view = self._fleet.get(model)
        until_s = STAYS_FULL_S
        if view.drain_per_s is not None:
            until_s = min(until_s, STAYS_FULL_SHARE * view.queue_depth / view.drain_per_s)
        self._full[model] = time.monotonic() + until_s, message

    def _room_in_s(self, model: str) -> float:
        view = self._fleet.get(model)
        return room_in_s(view.queue_depth, view.drain_per_s)


def _jobs_of(model: str) -> str:
    """Return what `QueueFull.subject` calls the limit on jobs."""
    return f"model:{model}/jobs"


def _answered(reply: Reply) -> Reply:
    if reply.HasField("answer"):
        return reply
    error = error_of(reply.failure)
    error.worker = reply.worker
    raise error
