"""The nouns of operations: what is submitted, what is kept, and how far it has come."""

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from despacho.job.v1.job_pb2 import Job, Reply

_ID_BYTES: Final = 16


class Progress(enum.Enum):
    """How far an operation has come."""

    QUEUED = enum.auto()
    RUNNING = enum.auto()
    DONE = enum.auto()


@dataclass(frozen=True, slots=True)
class OperationLimits:
    """What operations of one model may take up, over all front-ends, and for how long."""

    jobs: int
    """Most that wait."""

    size_bytes: int
    """Most bytes of those."""

    kept: int
    """Most of one caller, ended ones included."""

    deadline_s: float
    """How long one may take."""

    ttl_s: float
    """How long one can be fetched after its end."""


@dataclass(frozen=True, slots=True)
class OperationKey:
    """Which operation, and who asks; another caller's does not exist."""

    model: str
    id: str
    caller: str


@dataclass(frozen=True, slots=True, eq=False)
class NewOperation:
    """One operation on its way into Redis; harmless when repeated."""

    key: OperationKey
    job: Job
    """Its `id` is that of the operation, and it has no `reply_to`."""

    image: bytes

    @classmethod
    def of(cls, job: Job, image: bytes, *, caller: str, request_id: str) -> "NewOperation":
        """Give a job the id that follows from who submits it under which `request_id`."""
        job.id = operation_id(caller, request_id)
        job.request_id = request_id
        return cls(OperationKey(job.model, job.id, caller), job, image)

    def fingerprint(self) -> str:
        """Return what is equal when the content is: the trace may differ from try to try."""
        content = Job(
            model=self.job.model, top_k=self.job.top_k, include_scores=self.job.include_scores
        )
        digest = hashlib.sha256(content.SerializeToString(deterministic=True))
        digest.update(self.image)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation at one moment. Times are milliseconds of Redis time."""

    job: Job
    created_ms: int
    deadline_ms: int
    ended_ms: int | None
    expires_ms: int
    """When it is forgotten; while it runs, at the latest."""

    now_ms: int
    progress: Progress
    attempt: int
    """Deliveries to workers so far."""

    position: int
    """How many are taken before it, plus one; 0 unless queued."""

    reply: Reply | None
    """What came of it, once it is done."""

    @property
    def size_bytes(self) -> int:
        """How much it takes to say what was asked and what came of it, about."""
        return self.job.ByteSize() + (self.reply.ByteSize() if self.reply else 0)

    @property
    def is_overdue(self) -> bool:
        """Whether it should have ended by itself."""
        return self.progress is not Progress.DONE and self.now_ms > self.deadline_ms

    @classmethod
    def parsed(cls, look: Sequence[Any]) -> "Operation":
        """Read what `look_at_operation.lua` returns."""
        record, expires_ms, now_ms, attempt, is_running, position = look
        fields = dict(zip(record[::2], record[1::2], strict=True))
        ended = fields.get(b"ended")
        reply = Reply.FromString(fields[b"reply"]) if ended is not None else None
        if reply is not None:
            progress = Progress.DONE
        else:
            progress = Progress.RUNNING if is_running else Progress.QUEUED
        return cls(
            job=Job.FromString(fields[b"job"]),
            created_ms=int(fields[b"created"]),
            deadline_ms=int(fields[b"deadline"]),
            ended_ms=None if ended is None else int(ended),
            expires_ms=expires_ms,
            now_ms=now_ms,
            progress=progress,
            attempt=attempt if reply is None else reply.attempt,
            position=position,
            reply=reply,
        )


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Some operations of one caller and model, the newest first."""

    operations: list[Operation]
    used_bytes: int
    """Of the page so far, those of other models included."""

    next_before: int | None
    """Where the next page begins; None: there is none."""


def operation_id(caller: str, request_id: str) -> str:
    """Return the id of what a caller submits under a `request_id`.

    Repeating the request finds it again; nobody else can guess it.
    """
    text = f"{caller}\0{request_id}".encode()
    return hashlib.sha256(text).hexdigest()[: 2 * _ID_BYTES]
