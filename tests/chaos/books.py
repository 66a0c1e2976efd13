"""The audit after each row: from outside, what was promised and what came of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import redis

from dispatch import keys
from tests.chaos.crowd import Crowd
from tests.chaos.journal import read_journal
from tests.redis_server import RedisServer

SETTLE_S: Final = 20.0
"""How long everything may take to return to zero after the last caller has left."""

RENEWED_MS: Final = 12_000
"""A live front-end renews its reply streams more often."""


@dataclass(slots=True)
class Books:
    """What Redis and the callers say, side by side."""

    accepted: int = 0
    answered: int = 0
    lost: int = 0
    duplicated: int = 0
    faults: list[str] = field(default_factory=list)


def totals(client: "redis.Redis", model: str) -> dict[str, int]:
    """Return the outcomes counted in Redis."""
    found = cast("dict[bytes, bytes]", client.hgetall(keys.totals(model)))
    return {name.decode(): int(count) for name, count in found.items()}


def remains(client: "redis.Redis", model: str) -> dict[str, int]:
    """Return everything that is not back to zero."""
    found: dict[str, int] = {}
    for stream in keys.job_streams(model):
        found[stream] = client.xlen(stream)
        if found[stream] or client.exists(stream):
            found[f"{stream} pending"] = client.xpending(stream, keys.GROUP)["pending"]
    for name in ("bytes", "operation_bytes"):
        found[name] = int(client.hget(keys.load(model), name) or 0)
    for key in client.scan_iter(match=keys.replies("*", "*").replace("{*}", "*"), count=1000):
        # That of a dead front-end is read by nobody, and goes when its time comes.
        if client.pttl(key) > keys.REPLIES_TTL_MS - RENEWED_MS:
            found[key.decode()] = client.xlen(key)
    return {name: count for name, count in found.items() if count}


def lasting(client: "redis.Redis", model: str) -> set[str]:
    """Return keys without a TTL that `dispatch/keys.py` does not call permanent."""
    permanent = {
        keys.MODELS,
        keys.FRONT_ENDS,
        *(name(model) for name in (keys.card, keys.workers, keys.load, keys.totals, keys.dead)),
        *keys.job_streams(model),
    }
    found = {key.decode() for key in client.scan_iter(count=1000) if client.pttl(key) == -1}
    return found - permanent


async def audit(
    server: RedisServer, model: str, crowds: Sequence[Crowd], *, is_exact: bool
) -> Books:
    """Wait until all is quiet, and compare.

    Args:
        server: the real Redis, not through a proxy.
        model: name of the model.
        crowds: all who called.
        is_exact: whether each completed job had a caller who stayed for the answer.
    """
    books = Books()
    with server.client() as client:
        if left := await _settled(client, model):
            books.faults.append(f"not back to zero: {left}")
        await _written(client)
        counts = totals(client, model)
        if keys_left := lasting(client, model):
            books.faults.append(f"keys that stay for ever: {sorted(keys_left)[:5]}")
        waiting = sum(client.xlen(stream) for stream in keys.job_streams(model))
    journal = read_journal(server.folder)

    books.accepted = counts.get("accepted", 0)
    ended = sum(counts.values()) - books.accepted
    books.answered = sum(len(crowd.answered()) for crowd in crowds)
    without = [call for crowd in crowds for call in crowd.lost()]
    missing = books.accepted - ended - waiting
    books.lost = len(without) + max(0, missing)
    books.duplicated = journal.repeated() + sum(crowd.repeated() for crowd in crowds)

    if missing:
        books.faults.append(f"{missing} of the accepted have no outcome: {counts}")
    if without:
        reasons = sorted({call.refusal or "a wrong answer" for call in without})
        books.faults.append(f"{len(without)} callers without an answer: {', '.join(reasons)}")
    if books.duplicated:
        books.faults.append(f"{books.duplicated} replies too many")
    if sum(journal.enqueued.values()) != books.accepted:
        books.faults.append(f"{sum(journal.enqueued.values())} jobs in the file, not as counted")
    completed = counts.get("completed", 0)
    if completed < books.answered or (is_exact and completed > books.answered):
        books.faults.append(f"{completed} completed, {books.answered} answered")
    return books


async def _settled(client: "redis.Redis", model: str) -> dict[str, int]:
    """Return what is still there when the time is over."""
    limit = asyncio.get_running_loop().time() + SETTLE_S
    while left := remains(client, model):
        if asyncio.get_running_loop().time() > limit:
            return left
        await asyncio.sleep(0.1)
    return {}


async def _written(client: "redis.Redis") -> None:
    """Wait until the append-only file has everything; Redis may hold it for a second or two."""
    async with asyncio.timeout(SETTLE_S):
        while client.info("persistence").get("aof_buffer_length"):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.1)
