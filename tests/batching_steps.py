"""Decoded images and queues of them, for tests of how they become batches."""

import math
import time
from collections.abc import Callable

import numpy as np

from despacho.job.v1.job_pb2 import Job
from dispatch.jobs import Claim, Priority
from worker.batch_cost import BatchCost
from worker.batching import Prepared, ReadyQueue
from worker.politeness import Politeness

LIMIT_S = 5.0
HIGH, NORMAL, LOW, OPERATION = Priority


def claim(number: int = 0, priority: Priority = NORMAL) -> Claim:
    return Claim(Job(), b"", priority, f"{number}-0", 1, 0, 0)


def prepared(number: int = 0, priority: Priority = NORMAL) -> Prepared:
    return Prepared(claim(number, priority), np.zeros((1, 1, 3), np.uint8), 0, 0)


def numbers(batch: list[Prepared] | None) -> list[int]:
    assert batch is not None
    return [int(item.claim.entry_id.removesuffix("-0")) for item in batch]


def put(ready: ReadyQueue, *numbers: int, priority: Priority = NORMAL) -> None:
    for number in numbers:
        item = prepared(number, priority)
        ready.expect(item.claim)
        ready.put([item])


class NeverPolite(Politeness):
    """Does not know that calls are about: a rule of its own, tested elsewhere."""

    def call_came(self) -> None:
        """Forget it."""


def ready_queue(
    max_batch_size: int,
    *,
    max_wait_s: float,
    cost: BatchCost | None = None,
    remaining_s: Callable[[Claim], float] = lambda _: math.inf,
    has_undecoded: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> ReadyQueue:
    return ReadyQueue(
        max_wait_s=max_wait_s,
        cost=cost or BatchCost(max_batch_size),
        politeness=NeverPolite(max_batch_size),
        remaining_s=remaining_s,
        has_undecoded=has_undecoded,
        clock=clock,
    )
