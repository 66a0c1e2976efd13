"""The front-ends' door to Redis: enqueue, cancel, and look at what is there."""

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from google.protobuf.message import DecodeError
from redis.exceptions import OutOfMemoryError, ResponseError

from despacho.job.v1.job_pb2 import ModelCard, WorkerCard
from dispatch import broker_check, keys, overdue, scripts
from dispatch.errors import BrokerUnavailable, DespachoError, QueueFull
from dispatch.jobs import OnSpared, Outcome, Priority, Submission
from dispatch.line import REPLY_TIMEOUT_S, Line, checked, timeout_of
from dispatch.overdue import OverdueEntry
from dispatch.reply_stream import ReplyStream
from dispatch.resp_errors import WritesRefused
from dispatch.scripts import Argument, Command

BATCH_JOBS = 64
BATCH_BYTES = 1024 * 1024
"""At most one image above this is admitted in one call of a script, which blocks Redis."""

_INDEX = {priority: index for index, priority in enumerate(Priority, start=1)}


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What one model may have waiting or in work, over all front-ends."""

    jobs: int
    size_bytes: int


# Made for each call, so not frozen: that would take three times as long.
@dataclass(slots=True, eq=False)
class Enqueue:
    """Admit a job; harmless when repeated. Does not change."""

    submission: Submission
    is_again: bool = False
    """Whether it was admitted once and then lost: a full queue is then no reason to fail."""

    since: float = field(default_factory=time.monotonic)
    """When it was asked for, seconds of the monotonic clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Cancel:
    """Retire a job that nobody waits for; harmless when repeated."""

    model: str
    job_id: str
    size_bytes: int
    outcome: Outcome
    """`CANCELLED` or `EXPIRED`."""

    late_ms: int
    """How long an enqueue of the job that is still under way must be refused."""

    since: float = field(default_factory=time.monotonic)
    """When it was asked for, seconds of the monotonic clock."""

    @property
    def is_over(self) -> bool:
        """Whether Redis has forgotten where the job is: there is nothing to find any more."""
        return time.monotonic() > self.since + self.late_ms / 1000

    @classmethod
    def of(cls, submission: Submission, outcome: Outcome) -> "Cancel":
        """Return what retires `submission`, without holding on to its image."""
        remaining_s = max(0.0, submission.answer_by - time.monotonic())
        return cls(
            model=submission.job.model,
            job_id=submission.job.id,
            size_bytes=size_bytes(submission),
            outcome=outcome,
            late_ms=round(remaining_s * 1000) + keys.JOB_GRACE_MS,
        )


Operation = Enqueue | Cancel


@dataclass(frozen=True, slots=True)
class ModelLook:
    """One model at one moment."""

    card: ModelCard
    workers: tuple[WorkerCard, ...]
    """The live ones."""

    queued_jobs: int
    """Calls waiting or in work."""

    queued_operations: int
    """Operations waiting or in work."""

    retired_jobs: int
    """Ended since the totals began; never falls."""


def size_bytes(submission: Submission) -> int:
    """What a job counts for in the limits."""
    return len(submission.image) + submission.job.ByteSize() + keys.ENTRY_OVERHEAD_BYTES


def _batches(operations: Sequence[Operation]) -> list[Cancel | list[Enqueue]]:
    """Return what each command does: one cancel, or several enqueues of one model.

    They stay in order, but for jobs of different models, which know nothing of each other.
    """
    batches: list[Cancel | list[Enqueue]] = []
    # Of each model, the batch that more may join, and the bytes of its images.
    growing: dict[str, tuple[list[Enqueue], int]] = {}
    for operation in operations:
        if isinstance(operation, Cancel):
            # No later job of the model may join those before it.
            growing.pop(operation.model, None)
            batches.append(operation)
            continue
        model = operation.submission.job.model
        batch, bytes_before = growing.get(model, ([], 0))
        if not batch or len(batch) == BATCH_JOBS or bytes_before >= BATCH_BYTES:
            batch, bytes_before = [], 0
            batches.append(batch)
        batch.append(operation)
        growing[model] = batch, bytes_before + len(operation.submission.image)
    return batches


def _job_keys(model: str, job_id: str) -> list[str]:
    """Return the keys of the script `cancel`."""
    return [
        *keys.call_streams(model),
        keys.job(model, job_id),
        keys.load(model),
        keys.totals(model),
    ]


class JobStore(AbstractAsyncContextManager["JobStore"]):
    """Typed access for one front-end process. Long-lived tasks only: see `Line`."""

    def __init__(
        self,
        url: str,
        server_id: str,
        limits: QueueLimits,
        *,
        on_spared: OnSpared | None = None,
    ) -> None:
        self.server_id = server_id
        self._url = url
        self._limits = limits
        self._on_spared = on_spared
        self._writes = Line(url, reply_timeout_s=REPLY_TIMEOUT_S)
        self._reads = Line(url, reply_timeout_s=REPLY_TIMEOUT_S)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._writes.close()
        await self._reads.close()

    async def complaints(self) -> list[str]:
        """Return what is wrong with the settings of Redis; empty when it will not tell.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out, or it takes no writes.
        """
        # One that loads its file, which may take minutes, answers INFO all the same.
        written, *replies = await self._writes.call(
            broker_check.WRITES_NOTHING,
            *(("INFO", section) for section in ("server", "memory", "persistence")),
        )
        checked(written)
        texts = [reply.decode() for reply in replies if isinstance(reply, bytes)]
        return broker_check.complaints(broker_check.parsed_info("\n".join(texts)))

    async def send(self, operations: Sequence[Operation]) -> list[DespachoError | None]:
        """Carry out operations in order.

        Returns:
            For each: None, or why an enqueue was refused (`QueueFull`, or
            `BrokerUnavailable` when Redis answers with an error), or a cancel
            (`BrokerUnavailable`: Redis takes no writes for now; repeat it).

        Raises:
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: each operation may or may not have been done; repeat them.
        """
        now = time.monotonic()
        batches = _batches(operations)
        sent_bytes = sum(
            len(each.submission.image) for each in operations if isinstance(each, Enqueue)
        )
        replies = await self._writes.call(
            *(self._command(batch, now) for batch in batches),
            timeout_s=timeout_of(sent_bytes),
        )
        refusals: dict[Operation, DespachoError] = {}
        for batch, reply in zip(batches, replies, strict=True):
            if isinstance(batch, Cancel):
                if isinstance(reply, WritesRefused):
                    refusals[batch] = BrokerUnavailable("the broker takes no writes")
                elif reply == 1 and self._on_spared is not None:
                    self._on_spared(batch.model, batch.outcome)
            else:
                # An error is that of the whole batch: nothing of it was done.
                answers = reply if isinstance(reply, list) else [reply] * len(batch)
                for enqueue, answer in zip(batch, answers, strict=True):
                    refusal = self._refusal(enqueue.submission.job.model, answer)
                    if refusal is not None:
                        refusals[enqueue] = refusal
        return [refusals.get(operation) for operation in operations]

    def _command(self, batch: "Cancel | list[Enqueue]", now: float) -> Command:
        if isinstance(batch, Cancel):
            return scripts.CANCEL.call(
                _job_keys(batch.model, batch.job_id),
                (keys.GROUP, batch.size_bytes, batch.outcome.value, batch.late_ms),
            )
        model = batch[0].submission.job.model
        names = [*keys.call_streams(model), keys.load(model), keys.totals(model)]
        arguments: list[Argument] = [self._limits.jobs, self._limits.size_bytes, keys.JOB_GRACE_MS]
        for enqueue in batch:
            submission = enqueue.submission
            names.append(keys.job(model, submission.job.id))
            job = submission.job.SerializeToString()
            arguments += (
                _INDEX[submission.priority],
                len(submission.image) + len(job) + keys.ENTRY_OVERHEAD_BYTES,
                max(1, round((submission.answer_by - now) * 1000)),
                job,
                submission.image,
            )
        return scripts.ENQUEUE.call(names, arguments)

    def _refusal(self, model: str, answer: Any) -> DespachoError | None:
        if isinstance(answer, OutOfMemoryError):
            return QueueFull(f"model:{model}/memory", "the broker's memory is full")
        if isinstance(answer, ResponseError):
            refusal = BrokerUnavailable("the broker refused the image")
            refusal.__cause__ = answer  # for the log; it is not the caller's business
            return refusal
        if answer == -1:
            return QueueFull(
                f"model:{model}/jobs", f"{self._limits.jobs} images are waiting already"
            )
        if answer == -2:  # noqa: PLR2004 - as enqueue.lua says
            return QueueFull(
                f"model:{model}/bytes",
                f"{self._limits.size_bytes} bytes of images are waiting already",
            )
        return None

    def replies(self, model: str) -> ReplyStream:
        """Return this process's replies of a model, on a connection of their own."""
        return ReplyStream(self._url, model, self.server_id)

    async def missing(self, model: str, job_ids: Sequence[str]) -> list[str]:
        """Return those of the jobs that are neither waiting nor claimed.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        names = [*keys.call_streams(model), *(keys.job(model, job_id) for job_id in job_ids)]
        (positions,) = await self._reads.call(scripts.MISSING.call(names, (keys.GROUP,)))
        return [job_ids[position - 1] for position in checked(positions)]

    async def forget_enqueue(self, model: str, job_id: str) -> None:
        """Let a job that was lost be enqueued once more under its id.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not be done for certain.
        """
        await self._reads.call(("DEL", keys.job(model, job_id)))

    async def end_overdue(self, model: str, *, overdue_s: float = overdue.OVERDUE_S) -> int:
        """Retire calls that are long overdue, which workers do when there are any.

        The front-end that should have cancelled them is gone, or did not reach Redis in time.

        Args:
            model: of which model.
            overdue_s: how long after their deadlines.

        Returns:
            How many were retired.

        Raises:
            BrokerUnavailable, OutcomeUnknown: some may have been retired.
        """
        count = 0
        for stream in keys.call_streams(model):
            end = partial(self._end_entry, model, stream)
            count += await overdue.end_overdue(self._reads.call, stream, end, overdue_s=overdue_s)
        return count

    async def _end_entry(self, model: str, stream: str, entry: OverdueEntry) -> bool:
        names = [stream, keys.load(model), keys.totals(model)]
        (code,) = await self._reads.call(
            scripts.END_CALL.call(names, (keys.GROUP, entry.id, entry.size))
        )
        if checked(code) == 1 and self._on_spared is not None:
            self._on_spared(model, Outcome.EXPIRED)
        return bool(code)

    async def models(self) -> list[str]:
        """Return the names of all models ever announced.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        # A replica would answer as well, and perhaps with what has changed since.
        _, names = await self._reads.call(broker_check.WRITES_NOTHING, ("SMEMBERS", keys.MODELS))
        return sorted(name.decode() for name in checked(names))

    async def look(self, model: str) -> ModelLook | None:
        """Return what is known of a model; None when that is nothing that can be read.

        Raises:
            BrokerUnavailable, OutcomeUnknown: could not find out.
        """
        replies = await self._reads.call(
            ("GET", keys.card(model)),
            ("SMEMBERS", keys.workers(model)),
            ("HGETALL", keys.totals(model)),
            *(("XLEN", stream) for stream in keys.job_streams(model)),
        )
        # Keys that are not ours make one model unknown, and no other.
        if replies[0] is None or any(_is_not_ours(reply) for reply in replies):
            return None
        card, names, totals, *lengths = map(checked, replies)
        try:
            counts = dict(zip(totals[::2], map(int, totals[1::2]), strict=True))
            worker_names = [name.decode() for name in names]
            model_card = ModelCard.FromString(card)
        except (DecodeError, ValueError):
            return None  # not written by a worker of ours
        retired = sum(count for name, count in counts.items() if name != b"accepted")
        return ModelLook(
            card=model_card,
            workers=await self._live_workers(model, worker_names),
            queued_jobs=sum(lengths[:-1]),
            queued_operations=lengths[-1],
            retired_jobs=retired,
        )

    async def _live_workers(self, model: str, names: Sequence[str]) -> tuple[WorkerCard, ...]:
        if not names:
            return ()
        (cards,) = await self._reads.call(("MGET", *(keys.worker(model, name) for name in names)))
        dead = [name for name, card in zip(names, checked(cards), strict=True) if card is None]
        if dead:
            # One that was only silent adds its name again with its next word.
            await self._reads.call(("SREM", keys.workers(model), *dead))
        return tuple(card for text in cards if (card := _worker_card(text)) is not None)


def _worker_card(text: bytes | None) -> WorkerCard | None:
    try:
        return None if text is None else WorkerCard.FromString(text)
    except DecodeError:
        return None  # not written by a worker of ours


def _is_not_ours(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
