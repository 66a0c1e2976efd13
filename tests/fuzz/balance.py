"""What Redis counted, once all is quiet: each accepted job has one outcome, and nothing is left."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import redis

from tests.chaos.books import lasting, remains, totals

SETTLE_S: Final = 30.0
"""How long everything may take to return to zero."""

PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Balance:
    """What was counted, and what is wrong with it."""

    totals: Mapping[str, int]
    faults: list[str] = field(default_factory=list)


async def balance(client: "redis.Redis", model: str, *, settle_s: float = SETTLE_S) -> Balance:
    """Wait until all is quiet, and compare what Redis counted.

    Args:
        client: of the server.
        model: name of the model.
        settle_s: how long to wait.
    """
    ends_at = time.monotonic() + settle_s
    while (left := remains(client, model)) and time.monotonic() < ends_at:  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(PAUSE_S)
    found = Balance(totals(client, model))
    if left:
        found.faults.append(f"not back to zero: {left}")
    if kept := lasting(client, model):
        found.faults.append(f"keys that stay for ever: {sorted(kept)[:5]}")
    accepted = found.totals.get("accepted", 0)
    if sum(found.totals.values()) - accepted != accepted:
        found.faults.append(f"accepted is not the sum of the outcomes: {found.totals}")
    for outcome in ("poisoned", "orphaned"):
        if count := found.totals.get(outcome):
            found.faults.append(f"{count} jobs {outcome}")
    return found
