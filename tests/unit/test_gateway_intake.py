"""Several images of one request, on their way to the front-end."""

import math
import time
from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest

from client.errors import Overloaded
from client.messages import Call
from gateway import intake
from gateway.body import Piece
from gateway.connection import UnknownConnection
from gateway.held_bytes import HeldBytes
from gateway.problems import Refused


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

    def again(self) -> Call[str]:
        return self.finish()

    def close(self) -> None:
        self._hold.release()


def images(*sizes: int) -> Iterator[Piece]:
    for size in sizes:
        yield Piece(bytes(size), begins=True, ends=True)


def sent(pieces: Iterator[Piece]) -> tuple[int, list[Any]]:
    """Send images to a front-end that is slow; return the most bytes that were kept."""
    held, seen = HeldBytes(10_000), list[int]()
    outcomes = intake.many(
        pieces, lambda _: HeldImage(held, seen), UnknownConnection(), ends_s=math.inf
    )
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


class RefusedCall(LazyCall):
    """Ends with what a key that has used up its limits is told."""

    def __init__(self, retry_after_s: float) -> None:
        self._retry_after_s = retry_after_s

    def result(self) -> str:
        raise Overloaded(
            "enough for now",
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason="RATE_LIMITED",
            retry_after_s=self._retry_after_s,
        )


class RefusedImage(HeldImage):
    """Is refused some times before it is answered; without `is_here` it cannot be sent again."""

    def __init__(self, held: HeldBytes, refusals: int, *, is_here: bool, hint_s: float) -> None:
        super().__init__(held, [])
        self._refusals, self._is_here, self._hint_s = refusals, is_here, hint_s
        self.sent_count = 0

    def finish(self) -> Call[str]:
        self.sent_count += 1
        if self.sent_count <= self._refusals:
            return cast("Call[str]", RefusedCall(self._hint_s))
        return super().finish()

    def again(self) -> Call[str]:
        assert self.held_bytes
        return self.finish() if self._is_here else cast("Call[str]", None)


@pytest.mark.parametrize(
    ("refusals", "is_here", "hint_s", "sent_count", "reason"),
    [
        (3, True, 0.01, 4, ""),
        (1, False, 0.01, 1, "RATE_LIMITED"),
        # There is no time for what the front-end asks for.
        (1, True, 60.0, 1, "RATE_LIMITED"),
    ],
)
def test_an_image_that_the_limits_of_its_key_held_up_is_sent_again(
    refusals: int, *, is_here: bool, hint_s: float, sent_count: int, reason: str
) -> None:
    image = RefusedImage(HeldBytes(100), refusals, is_here=is_here, hint_s=hint_s)
    ends_s = time.monotonic() + 30
    (outcome,) = intake.many(images(7), lambda _: image, UnknownConnection(), ends_s=ends_s)
    assert image.sent_count == sent_count
    assert (outcome.problem.reason if outcome.problem else "") == reason
    assert image.held_bytes == 0


def test_a_request_that_breaks_off_keeps_nothing_and_gives_its_images_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancelled: list[LazyCall] = []

    def cancel(call: LazyCall) -> None:
        cancelled.append(call)

    monkeypatch.setattr(LazyCall, "cancel", cancel)
    held = HeldBytes(10_000)

    def broken() -> Iterator[Piece]:
        yield from images(10, 20)
        yield Piece(bytes(30), begins=True, ends=False)
        raise Refused(400, "the body is broken")

    with pytest.raises(Refused):
        intake.many(broken(), lambda _: HeldImage(held, []), UnknownConnection(), ends_s=math.inf)
    assert held.now == 0
    assert len(cancelled) == 2
