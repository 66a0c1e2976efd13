"""The commands by which workers answer jobs and retire them."""

from collections.abc import Sequence
from typing import Final

from despacho.job.v1.job_pb2 import DeadLetter, Reply
from dispatch import keys, scripts
from dispatch.jobs import Claim, Outcome
from dispatch.scripts import Argument, Command

BATCH_JOBS: Final = 64
"""So many are retired in one call of a script, which blocks Redis."""

Ended = tuple[Claim, Reply, Outcome]
"""A job that is over: its answer, and the field of `totals` that it adds to."""


def completing(model: str, ended: Sequence[Ended]) -> Command:
    """Return what publishes replies of one model and retires their jobs.

    Args:
        model: its name.
        ended: at most `BATCH_JOBS`.
    """
    names = [keys.load(model), keys.totals(model), keys.done(model)]
    arguments: list[Argument] = [keys.GROUP, keys.DONE_MAX, keys.DONE_TTL_MS]
    for claim, reply, outcome in ended:
        names += (keys.jobs(model, claim.priority), _target(model, claim))
        arguments += (
            *(claim.entry_id, claim.size_bytes, reply.SerializeToString(), outcome.value),
            _operation(claim),
        )
    return scripts.COMPLETE.call(names, arguments)


def quarantining(
    model: str, claim: Claim, reply: Reply, letter: DeadLetter, max_bytes: int
) -> Command:
    """Return what sets a job aside on which workers died, and tells its caller.

    Args:
        model: its name.
        claim: the job.
        reply: what its caller is told.
        letter: what an operator is told.
        max_bytes: most bytes of dead letters; the oldest make room.
    """
    return scripts.QUARANTINE.call(
        [
            *(keys.jobs(model, claim.priority), keys.load(model), keys.totals(model)),
            *(_target(model, claim), keys.done(model), keys.dead(model)),
        ],
        (
            *(keys.GROUP, claim.entry_id, claim.size_bytes),
            *(reply.SerializeToString(), letter.SerializeToString()),
            *(_operation(claim), keys.DONE_MAX, keys.DONE_TTL_MS, max_bytes),
        ),
    )


def _target(model: str, claim: Claim) -> str:
    """Return where the answer goes: to a front-end, or into a record."""
    if claim.is_operation:
        return keys.operation(model, claim.job.id)
    return keys.replies(model, claim.job.reply_to)


def _operation(claim: Claim) -> str:
    return claim.job.id if claim.is_operation else ""
