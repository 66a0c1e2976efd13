"""The commands by which workers take jobs, and what a job is that was taken."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from despacho.job.v1.job_pb2 import Job
from dispatch import keys, scripts
from dispatch.jobs import Claim, Priority
from dispatch.scripts import Command


def counting(streams: Sequence[str]) -> Command:
    """Return what says of each stream how many jobs wait there.

    Args:
        streams: their keys.
    """
    return scripts.COUNT_WAITING.call(streams, (keys.GROUP,))


def reading(
    worker: str, streams: Sequence[str], count: int, block_ms: int | None = None
) -> Command:
    """Return what takes jobs.

    Args:
        worker: for whom.
        streams: their keys.
        count: how many to take of each stream.
        block_ms: how long to wait for the first; None: not at all.
    """
    block = () if block_ms is None else ("BLOCK", block_ms)
    return (
        *("XREADGROUP", "GROUP", keys.GROUP, worker, "COUNT", count, *block),
        *("STREAMS", *streams, *(">" for _ in streams)),
    )


def claim_of(
    priority: Priority, entry_id: bytes, fields: Sequence[bytes], *, attempt: int
) -> Claim | None:
    """Return the job of an entry; None if `enqueue` did not write it.

    Args:
        priority: that of its stream.
        entry_id: where it is there.
        fields: names and values in turn.
        attempt: which delivery this is, counted from 1.
    """
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return Claim(
            job=Job.FromString(values[b"job"]),
            image=values[b"image"],
            priority=priority,
            entry_id=entry_id.decode(),
            attempt=attempt,
            deadline_ms=int(values[b"deadline"]),
            size_bytes=int(values[b"size"]),
        )
    except (KeyError, ValueError, DecodeError):
        return None
