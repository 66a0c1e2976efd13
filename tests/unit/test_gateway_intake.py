"""Several images of one request, on their way to the front-end."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from client.messages import Call
from gateway import intake
from gateway.body import Piece
from gateway.connection import UnknownConnection
from gateway.held_bytes import HeldBytes


class LazyCall:
    """Ends when it is waited for, and not before."""

    def wait(self, limit_s: float) -> bool:
        del limit_s
        return True

    def cancel(self) -> None:
        pass

    def result(self) -> str:
        return "done"


class HeldImage:
    """A sink that writes down the most that was kept at a time."""

    def __init__(self, held: HeldBytes, seen: list[int]) -> None:
        self._hold, self._held, self._seen = held.hold(), held, seen

    @property
    def held_bytes(self) -> int:
        return self._hold.size_bytes

    def write(self, piece: bytes) -> bool:
        assert self._hold.take(len(piece))
        self._seen.append(self._held.now)
        return True

    def finish(self) -> Call[str]:
        return cast("Call[str]", LazyCall())

    def close(self) -> None:
        self._hold.release()


def images(*sizes: int) -> Iterator[Piece]:
    for size in sizes:
        yield Piece(bytes(size), begins=True, ends=True)


def sent(pieces: Iterator[Piece]) -> tuple[int, list[Any]]:
    """Send images to a front-end that is slow; return the most bytes that were kept."""
    held, seen = HeldBytes(10_000), list[int]()
    outcomes = intake.many(pieces, lambda _: HeldImage(held, seen), UnknownConnection())
    assert held.now == 0
    return max(seen), [outcome.answer for outcome in outcomes]


def test_large_images_of_one_request_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WINDOW_BYTES", 100)
    most, answers = sent(images(*[60] * 40))
    assert most == 120  # the last one began while less than the window was on its way
    assert answers == ["done"] * 40


def test_small_images_wait_for_their_number_alone() -> None:
    most, answers = sent(images(*[1] * 40))
    assert most == intake.WINDOW
    assert answers == ["done"] * 40
