"""Waiting until Redis's disk has what was written, on servers that say so too early as well.

With `appendfsync everysec`, Valkey, and Redis 7.4 before it was mended
(https://github.com/redis/redis/pull/13793), answer WAITAOF as soon as the data is in the
file and less than a second has passed since the last fsync began. But they do so only
while no fsync is under way. So after such an answer the next fsync covers the data and
begins within a second, and once it has begun another WAITAOF, for something written
after it, is not answered before it has ended: early or not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from dispatch import broker_check, keys
from dispatch.errors import DurabilityUnavailable, OutcomeUnknown
from dispatch.line import Line
from dispatch.scripts import Command

TIMEOUT_MS: Final = 4000
"""How long the disk may take."""

FSYNC_BEGINS_S: Final = 1.3
"""Within this an fsync begins, with `everysec`: a second, and a turn of Redis's clock."""

_WAIT: Final[Command] = ("WAITAOF", 1, 0, TIMEOUT_MS)


class Disk:
    """Sends commands over one line and returns when the disk has what they wrote."""

    def __init__(
        self, line: Line, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Send nothing yet.

        Args:
            line: of nobody else: WAITAOF blocks it.
            sleep: how to let so many seconds pass.
        """
        self._line = line
        self._sleep = sleep

    async def write(self, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
        """Return the replies to commands, each of which must write something.

        Args:
            commands: what to send.
            timeout_s: how long sending, and each reply, may take, seconds.

        Raises:
            DurabilityUnavailable: Redis cannot say; nothing was done.
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: it may or may not have been done, or not have reached the disk.
        """
        # Of a replica WAITAOF says only that it cannot be used: the first one has the line left.
        _, probe, info, policy = await self._line.call(
            broker_check.WRITES_NOTHING,
            ("WAITAOF", 1, 0, 1),
            ("INFO", "server"),
            ("CONFIG", "GET", "appendfsync"),
        )
        if isinstance(probe, ResponseError):
            raise DurabilityUnavailable(
                "the broker cannot say what is on its disk: it needs Redis 7.2 or"
                " Valkey 7.2, with an append-only file"
            ) from probe
        wait_s = timeout_s + TIMEOUT_MS / 1000
        *replies, synced = await self._line.call(*commands, _WAIT, timeout_s=wait_s)
        _check(synced)
        if says_too_early(info, policy):
            await self._sleep(FSYNC_BEGINS_S)
            mark: Command = ("SET", keys.SYNC_MARK, 1, "PX", keys.SYNC_MARK_TTL_MS)
            marked, synced = await self._line.call(mark, _WAIT, timeout_s=wait_s)
            # Refused, as when memory is full, it left nothing to wait for.
            if isinstance(marked, ResponseError):
                raise OutcomeUnknown("the broker has refused a second write") from marked
            _check(synced)
        return replies


def says_too_early(info: Any, policy: Any) -> bool:
    """Return whether WAITAOF may be answered before the data is on the disk.

    Args:
        info: reply to INFO server.
        policy: reply to CONFIG GET appendfsync; an error where that is forbidden.
    """
    if isinstance(policy, list) and policy[1:] == [b"always"]:
        return False
    if not isinstance(info, bytes):
        return True
    fields = broker_check.parsed_info(info.decode())
    if "valkey_version" in fields:
        return True
    return fields.get("redis_version", "").split(".")[:2] == ["7", "4"]


def _check(synced: Any) -> None:
    if isinstance(synced, ResponseError) or synced[0] < 1:
        raise OutcomeUnknown("the broker's disk has not confirmed in time")
