"""What the store of operations asks of Redis."""

from typing import Final

from despacho.job.v1.job_pb2 import Failure, Reply
from dispatch import errors, keys, scripts
from dispatch.jobs import Outcome, Priority
from dispatch.operations import NewOperation, OperationKey, OperationLimits
from dispatch.scripts import Command

_ENDINGS: Final = {
    Outcome.CANCELLED: errors.OperationCancelled("the operation was cancelled"),
    Outcome.EXPIRED: errors.ExpiredInQueue("no worker was free before the deadline"),
}


def submit_operation(new: NewOperation, limits: OperationLimits, *, size_bytes: int) -> Command:
    """Return what admits an operation, as `submit.lua` says."""
    key = new.key
    return _in_order(
        scripts.SUBMIT.call(
            [
                keys.jobs(key.model, Priority.OPERATION),
                keys.operation(key.model, key.id),
                keys.operations(key.model, key.caller),
                keys.load(key.model),
                keys.totals(key.model),
                keys.card(key.model),
            ],
            (
                *(limits.jobs, limits.size_bytes, limits.kept, size_bytes),
                *(round(limits.deadline_s * 1000), round(limits.ttl_s * 1000)),
                *(key.id, key.caller, new.fingerprint()),
                *(new.job.SerializeToString(), new.image),
            ),
        )
    )


def look_at(key: OperationKey) -> Command:
    """Return what reads an operation, as `look_at_operation.lua` says."""
    return scripts.LOOK_AT_OPERATION.call(
        [
            keys.operation(key.model, key.id),
            keys.jobs(key.model, Priority.OPERATION),
            keys.load(key.model),
        ],
        (key.caller, keys.GROUP, keys.RELEASED),
    )


def end_operation(
    key: OperationKey, outcome: Outcome, *, entry: tuple[bytes, bytes] = (b"", b"0")
) -> Command:
    """Return what ends an operation, as `end_operation.lua` says."""
    error = _ENDINGS[outcome]
    reply = Reply(job_id=key.id, failure=Failure(reason=error.reason, message=str(error)))
    return _in_order(
        scripts.END_OPERATION.call(
            [
                keys.jobs(key.model, Priority.OPERATION),
                keys.operation(key.model, key.id),
                keys.load(key.model),
                keys.totals(key.model),
                keys.done(key.model),
            ],
            (
                *(keys.GROUP, key.caller, outcome.value, reply.SerializeToString(), key.id),
                *(keys.DONE_MAX, keys.DONE_TTL_MS, *entry),
            ),
        )
    )


def _in_order(script: Command) -> Command:
    # By its digest alone, what follows in the same round trip (a look, WAITAOF) would
    # come before it whenever Redis has forgotten the script.
    return scripts.in_full(script)
