"""A backlog of operations, submitted faster than through a front-end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from despacho.job.v1.job_pb2 import Job
from dispatch.operation_store import OperationStore
from dispatch.operations import NewOperation, OperationKey, OperationLimits

T = TypeVar("T")

PORTION: Final = 1000

BACKLOG_LIMITS: Final = OperationLimits(
    jobs=1_000_000, size_bytes=1 << 30, kept=1_000_000, deadline_s=3600, ttl_s=3600
)
"""Room for any backlog."""


async def pile_up(
    store: OperationStore, count: int, *, model: str, image: bytes
) -> list[OperationKey]:
    """Submit the same image many times, through the door that front-ends use."""
    new = [
        NewOperation.of(Job(model=model, top_k=1), image, caller="pile", request_id=str(number))
        for number in range(count)
    ]
    await in_portions(new, partial(store.submit, is_synced=False))
    return [each.key for each in new]


async def in_portions(each: Sequence[T], do: Callable[[T], Awaitable[object]]) -> None:
    """Do something with each, many at once."""
    for first in range(0, len(each), PORTION):
        await asyncio.gather(*map(do, each[first : first + PORTION]))
