"""A connection whose certificates are replaced: which one is used, and which is closed when."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from client.messages import Messages
from gateway.front_end import Follower, Pems, read_pem

LONGEST_CALL_S = 60.0


class World:
    """Files, and a front-end that accepts some of what they may have."""

    def __init__(self) -> None:
        self.pems: Pems | OSError = (b"old", None, None)
        self.is_reachable = True
        self.now_s = 1000.0
        self.tried = 0
        self.closed: list[int] = []
        """Connections, by their number; the first one is 0."""
        self._number = 0
        self.follower = Follower(
            cast("Messages", self),
            (b"old", None, None),
            self._read,
            longest_call_s=LONGEST_CALL_S,
            now=lambda: self.now_s,
        )

    def renew(self, credentials: Any, *, limit_s: float) -> Callable[[], None] | None:
        """Be a connection that is asked to be another one."""
        del credentials, limit_s
        self.tried += 1
        if not self.is_reachable:
            return None
        before, self._number = self._number, self._number + 1
        return lambda: self.closed.append(before)

    def _read(self) -> Pems:
        if isinstance(self.pems, OSError):
            raise self.pems
        return self.pems


@pytest.fixture
def world() -> World:
    return World()


def test_files_that_stay_the_same_change_nothing(world: World) -> None:
    world.follower.look()
    assert world.tried == 0


def test_the_connection_of_before_is_closed_when_its_calls_have_ended(world: World) -> None:
    world.pems = (b"new", None, None)
    for _ in range(2):
        world.follower.look()
    assert (world.tried, world.closed) == (1, [])
    world.now_s += LONGEST_CALL_S - 1
    world.follower.look()
    assert world.closed == []
    world.now_s += 1
    world.follower.look()
    assert world.closed == [0]


def test_what_the_front_end_does_not_take_is_tried_again_and_told_once(world: World) -> None:
    world.pems, world.is_reachable = (b"new", None, None), False
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            world.follower.look()
    assert (world.tried, len(lines)) == (3, 1)
    world.is_reachable = True
    with structlog.testing.capture_logs() as lines:
        world.follower.look()
    assert [line["event"] for line in lines] == ["new certificates in use"]


def test_files_that_go_away_leave_the_connection_as_it_is(world: World) -> None:
    world.pems = FileNotFoundError("gone")
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            world.follower.look()
    assert (world.tried, len(lines)) == (0, 1)
    world.pems = (b"new", None, None)
    world.follower.look()
    assert world.tried == 1


def test_all_connections_of_before_are_closed_at_the_end(world: World) -> None:
    for pem in (b"new", b"newer"):
        world.pems = (pem, None, None)
        world.follower.look()
    with world.follower:
        pass
    assert world.closed == [0, 1]


def test_an_empty_file_is_not_given_to_grpc(tmp_path: Path) -> None:
    """It would end the process."""
    file = tmp_path / "server.key"
    file.touch()
    with pytest.raises(OSError, match=r"server\.key is empty"):
        read_pem(str(file))
