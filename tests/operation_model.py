"""What should be true of operations: the same steps on plain lists, without Redis or time."""

from dataclasses import dataclass

from despacho.job.v1.job_pb2 import Failure, Reply
from dispatch.job_store import QueueLimits
from dispatch.jobs import Outcome, Priority, Submission
from dispatch.operations import NewOperation, OperationLimits, Progress
from tests.dispatch_model import RELEASED, DispatchModel, ModelJob, Place

ENDINGS = {
    Outcome.CANCELLED: "OPERATION_CANCELLED",
    Outcome.EXPIRED: "EXPIRED_IN_QUEUE",
}
"""What is kept of an operation that no worker answered."""


@dataclass(eq=False, kw_only=True)
class ModelOperation(ModelJob):
    """One admission of an operation: an id that is forgotten may be admitted again."""

    new: NewOperation
    limits: OperationLimits
    has_record: bool = False
    ended_ms: int | None = None
    """When it ended, as it was first seen."""

    @property
    def caller(self) -> str:
        """Whose it is."""
        return self.new.key.caller

    @property
    def is_overdue(self) -> bool:
        """Whether its deadline has passed: it is very short, or very long."""
        return self.limits.deadline_s < 1

    @property
    def is_running_late(self) -> bool:
        """Whether looking at it ends it."""
        return self.is_overdue and not self.is_retired

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        if self.is_retired:
            return Progress.DONE
        is_held = self.place is Place.CLAIMED and self.owner != RELEASED
        return Progress.RUNNING if is_held else Progress.QUEUED

    @property
    def attempt(self) -> int:
        """How often it was delivered, as its caller is told."""
        return self.deliveries if self.reply is None else self.reply.attempt


class OperationModel(DispatchModel):
    """One model's queue with the operations of any callers beside its calls."""

    def __init__(self, limits: QueueLimits, *, dead_letter_max_bytes: int) -> None:
        super().__init__(limits, dead_letter_max_bytes=dead_letter_max_bytes)
        self.done: list[str] = []
        """Ids of the operations that ended, in that order."""

        self.listed: dict[str, list[str]] = {}
        """For each caller the ids that a list begins with, the oldest first."""

    def operations(self) -> list[ModelOperation]:
        """Return all that were admitted, in order."""
        return [job for job in self.jobs if isinstance(job, ModelOperation)]

    def record(self, operation: ModelOperation) -> ModelOperation | None:
        """Return what is known under the id of an operation."""
        found = [each for each in self.operations() if each.has_record and each.id == operation.id]
        return found[0] if found else None

    def operation_bytes(self) -> int:
        """Return what is admitted of operations and not retired."""
        return sum(job.size_bytes for job in self.in_flight(Priority.OPERATION))

    def are_operations_full(self, limits: OperationLimits) -> bool:
        """Whether no more operations are admitted, however small."""
        return len(self.in_flight(Priority.OPERATION)) >= limits.jobs

    def submit(self, new: NewOperation, limits: OperationLimits) -> ModelOperation | str:
        """Admit an operation whose id is not known, or return the limit that refuses it."""
        job = Submission(new.job, new.image, Priority.OPERATION, answer_by=0.0)
        operation = ModelOperation(job, new=new, limits=limits)
        waiting_bytes = self.operation_bytes()
        caller = new.key.caller
        if self.are_operations_full(limits):
            return "jobs"
        if waiting_bytes and waiting_bytes + operation.size_bytes > limits.size_bytes:
            return "bytes"
        if len(self.listed.get(caller, ())) >= limits.kept:
            # Those whose record is gone are forgotten, and no longer count.
            self.list_ids(caller)
        listed = self.listed.get(caller, [])
        if len(listed) >= limits.kept:
            return "kept"
        # An id that is listed already moves to the end.
        self.listed[caller] = [*(each for each in listed if each != operation.id), operation.id]
        self.jobs.append(operation)
        self._admit(operation)
        operation.has_record = True
        return operation

    def end(self, operation: ModelOperation, outcome: Outcome) -> int:
        """End one that has a record and not ended; return 2 if it was delivered, else 1."""
        was_claimed = operation.place is Place.CLAIMED
        self._retire(operation, outcome)
        self._deliver(operation, Reply(job_id=operation.id, failure=_failure(outcome)))
        return 1 + was_claimed

    def delete(self, operation: ModelOperation) -> None:
        """Forget one that has a record and has ended."""
        operation.has_record = False
        self.listed[operation.caller].remove(operation.id)

    def list_ids(self, caller: str) -> list[str]:
        """Return the ids of a caller, the newest first; those without a record are dropped."""
        kept = {each.id for each in self.operations() if each.has_record}
        self.listed[caller] = [each for each in self.listed.get(caller, ()) if each in kept]
        return list(reversed(self.listed[caller]))

    def sweep(self) -> int:
        """End those at the front whose deadline has passed; return how many."""
        count = 0
        for job in sorted(self.in_flight(Priority.OPERATION), key=lambda job: job.admission):
            assert isinstance(job, ModelOperation)
            if not job.is_overdue:
                break
            if job.has_record:
                self.end(job, Outcome.EXPIRED)
            else:
                self._retire(job, Outcome.EXPIRED)
            count += 1
        return count

    def positions(self, operation: ModelOperation) -> range:
        """Return what a caller may be told of the place in the queue."""
        if operation.progress is not Progress.QUEUED:
            return range(1)
        if operation.place is Place.CLAIMED:
            return range(1, 2)  # given back: it is taken before all that nobody had
        rank = self.at(Place.WAITING, Priority.OPERATION).index(operation) + 1
        later = [each for each in self.operations() if each.admission > operation.admission]
        # It is told too early a place only if some were taken or ended before their turn.
        is_exact = all(each.place is Place.WAITING for each in later)
        return range(rank if is_exact else 1, rank + 1)

    def is_expected(self, job: ModelJob) -> bool:
        """Whether its front-end is there, or its record."""
        return job.has_record if isinstance(job, ModelOperation) else super().is_expected(job)

    def _deliver(self, job: ModelJob, reply: Reply) -> None:
        if isinstance(job, ModelOperation):
            job.reply = reply
            self.done.append(job.id)
        else:
            super()._deliver(job, reply)


def _failure(outcome: Outcome) -> Failure:
    return Failure(reason=ENDINGS[outcome])
