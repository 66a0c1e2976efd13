"""Ends what is long overdue in a job stream, which workers do when there are any."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from despacho.job.v1.job_pb2 import Job
from dispatch import keys, scripts
from dispatch.line import checked

OVERDUE_S: Final = keys.JOB_GRACE_MS / 1000
"""A job this long after its deadline has no worker that would end it."""

SWEEP_COUNT: Final = 64
SWEEP_BYTES: Final = 8 * 1024 * 1024
"""What one script of a sweep may look at: it blocks Redis while it runs."""

Call = Callable[..., Awaitable[list[Any]]]
"""Sends commands and returns their replies, as `Line.call` does."""


@dataclass(frozen=True, slots=True)
class OverdueEntry:
    """An entry of a job stream."""

    id: bytes
    size: bytes
    """Its size field."""

    job_id: str


async def end_overdue(
    call: Call, stream: str, end: Callable[[OverdueEntry], Awaitable[bool]], *, overdue_s: float
) -> int:
    """End the jobs at the head of a stream that are long overdue.

    Args:
        call: talks to Redis.
        stream: key of the stream.
        end: ends one of them; returns whether it was still there.
        overdue_s: how long after their deadlines.

    Returns:
        How many were ended.

    Raises:
        BrokerUnavailable, OutcomeUnknown: some may have been ended.
    """
    count = 0
    while True:
        (found,) = await call(
            scripts.LIST_OVERDUE.call([stream], (round(overdue_s * 1000), SWEEP_COUNT, SWEEP_BYTES))
        )
        checked(found)
        ended = 0
        for entry_id, size, job in zip(found[::3], found[1::3], found[2::3], strict=True):
            if job_id := _id_of(job):
                ended += await end(OverdueEntry(entry_id, size, job_id))
            else:
                # Not written by us: nobody waits for it, and it would be found for ever.
                _, deleted = await call(
                    ("XACK", stream, keys.GROUP, entry_id), ("XDEL", stream, entry_id)
                )
                ended += bool(checked(deleted))
        if ended == 0:
            return count
        count += ended


def _id_of(job: bytes) -> str:
    try:
        return Job.FromString(job).id
    except DecodeError:
        return ""
