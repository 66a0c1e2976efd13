"""What is said to be on the disk is there, also on servers that say so too early."""

from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from dispatch import keys
from dispatch.disk import FSYNC_BEGINS_S, Disk, says_too_early
from dispatch.errors import DurabilityUnavailable, OutcomeUnknown
from dispatch.scripts import Command

REFUSED = ResponseError("NOPERM")
EVERYSEC = [b"appendfsync", b"everysec"]
ALWAYS = [b"appendfsync", b"always"]
REDIS_8 = b"# Server\r\nredis_version:8.2.1\r\n"
REDIS_7_4 = b"# Server\r\nredis_version:7.4.2\r\n"
REDIS_7_2 = b"# Server\r\nredis_version:7.2.4\r\n"
VALKEY = b"# Server\r\nredis_version:7.2.4\r\nvalkey_version:9.1.0\r\n"
WRITES: list[Command] = [("SET", "a", 1), ("SET", "b", 2)]


class FakeLine:
    """A server with a disk: `said` is what it did, in order, a pause included."""

    def __init__(self, info: Any = REDIS_8, policy: Any = EVERYSEC) -> None:
        self.info = info
        self.policy = policy
        self.probe: Any = [1, 0]
        self.marked: Any = b"OK"
        self.synced: list[Any] = []
        """What WAITAOF answers after writes, one after the other; then that it is done."""
        self.said: list[str] = []
        self.together: list[int] = []
        """How many commands came in each round trip."""
        self.timeouts_s: list[float | None] = []

    async def call(self, *commands: Command, timeout_s: float | None = None) -> list[Any]:
        self.together.append(len(commands))
        self.timeouts_s.append(timeout_s)
        return [self._answer(*command) for command in commands]

    async def sleep(self, pause_s: float) -> None:
        self.said.append(f"pause {pause_s}")

    def _answer(self, name: Any, *arguments: Any) -> Any:
        self.said.append(f"{name} {arguments[0]}")
        if name == "INFO":
            return self.info
        if name == "CONFIG":
            return self.policy
        if name == "WAITAOF":
            is_probe = arguments[2] == 1
            return self.probe if is_probe else (self.synced.pop(0) if self.synced else [1, 0])
        return self.marked if arguments[0] == keys.SYNC_MARK else f"done {arguments[0]}"

    def writes(self) -> list[str]:
        return [each for each in self.said if each.startswith("SET")]


async def write(line: FakeLine, commands: Sequence[Command] = WRITES) -> list[Any]:
    disk = Disk(line, sleep=line.sleep)  # type: ignore[arg-type]
    return await disk.write(commands, timeout_s=2)


ASKED = ["SREM despacho:models", "WAITAOF 1", "INFO server", "CONFIG GET"]
WRITTEN = ["SET a", "SET b", "WAITAOF 1"]
MARKED = [f"pause {FSYNC_BEGINS_S}", "SET despacho:synced", "WAITAOF 1"]


@pytest.mark.parametrize(
    ("info", "policy", "does"),
    [
        (REDIS_8, EVERYSEC, ASKED + WRITTEN),
        (REDIS_8, ALWAYS, ASKED + WRITTEN),
        (VALKEY, ALWAYS, ASKED + WRITTEN),
        (REDIS_7_4, ALWAYS, ASKED + WRITTEN),
        (VALKEY, EVERYSEC, ASKED + WRITTEN + MARKED),
        (REDIS_7_4, EVERYSEC, ASKED + WRITTEN + MARKED),
        (REFUSED, EVERYSEC, ASKED + WRITTEN + MARKED),
        (VALKEY, REFUSED, ASKED + WRITTEN + MARKED),
    ],
)
async def test_replies_come_when_the_disk_has_what_was_written(
    info: Any, policy: Any, does: list[str]
) -> None:
    line = FakeLine(info, policy)
    assert await write(line) == ["done a", "done b"]
    assert line.said == does
    # WAITAOF is about what its own connection wrote: in one round trip it is the same one.
    assert line.together == ([4, 3] if does == ASKED + WRITTEN else [4, 3, 2])


async def test_the_disk_has_time_beyond_that_of_the_connection() -> None:
    line = FakeLine(VALKEY)
    await write(line)
    assert line.timeouts_s == [None, 6.0, 6.0]


@pytest.mark.parametrize("unsynced", [[0, 0], ResponseError("ERR no append-only file")])
@pytest.mark.parametrize("is_second", [False, True])
async def test_a_disk_that_has_not_confirmed_in_time_leaves_it_unknown(
    unsynced: Any, *, is_second: bool
) -> None:
    line = FakeLine(VALKEY)
    line.synced = [[1, 0], unsynced] if is_second else [unsynced]
    with pytest.raises(OutcomeUnknown):
        await write(line)


async def test_a_second_write_that_was_refused_shows_nothing() -> None:
    line = FakeLine(VALKEY)
    line.marked = OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'.")
    with pytest.raises(OutcomeUnknown):
        await write(line)


async def test_a_server_that_cannot_say_is_sent_nothing() -> None:
    line = FakeLine()
    line.probe = ResponseError("WAITAOF cannot be used when appendonly is disabled")
    with pytest.raises(DurabilityUnavailable):
        await write(line)
    assert line.writes() == []


async def test_a_probe_that_finds_the_disk_behind_is_no_reason_to_refuse() -> None:
    line = FakeLine()
    line.probe = [0, 0]
    assert await write(line) == ["done a", "done b"]


@pytest.mark.parametrize(
    ("info", "policy", "is_early"),
    [
        (REDIS_7_2, EVERYSEC, False),
        (REDIS_7_4, EVERYSEC, True),
        (b"redis_version:7.40.0\r\n", EVERYSEC, False),
        (REDIS_8, EVERYSEC, False),
        (b"redis_version:8.4.0\r\n", EVERYSEC, False),
        (VALKEY, EVERYSEC, True),
        (VALKEY, [b"appendfsync", b"no"], True),
        *((info, ALWAYS, False) for info in (REDIS_7_4, REDIS_8, VALKEY, REFUSED)),
        # A server that does not say what it is may be one of those.
        (REFUSED, EVERYSEC, True),
        (REFUSED, REFUSED, True),
        (VALKEY, REFUSED, True),
        (VALKEY, [], True),
        (REDIS_8, REFUSED, False),
    ],
)
def test_which_servers_say_too_early(info: Any, policy: Any, *, is_early: bool) -> None:
    assert says_too_early(info, policy) is is_early
