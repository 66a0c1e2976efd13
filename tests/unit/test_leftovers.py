"""It is asked what a read has left until the answer is known by heart, and then now and then."""

import itertools

import pytest

from dispatch import leftovers
from dispatch.leftovers import MOST_UNASKED, Leftovers


def unasked_in_a_row(left: Leftovers) -> int:
    """Return how many reads pass until one is asked about."""
    for count in itertools.count():
        if left.are_in_doubt():
            return count
        left.note_unasked()
    raise AssertionError("never")


def test_it_is_asked_more_and_more_rarely_while_nothing_is_left() -> None:
    left, rows = Leftovers(), []
    for _ in range(200):
        rows.append(unasked_in_a_row(left))
        left.note_asked(none=True)
    for number, row in enumerate(rows):
        most = min(number, MOST_UNASKED)
        assert most // 2 <= row <= most
    # By chance, so that no number of jobs that always come together is the wrong one for ever.
    assert len(set(rows[MOST_UNASKED:])) > 1


def test_it_is_asked_each_time_once_something_was_left() -> None:
    left = Leftovers()
    for _ in range(5):
        left.note_asked(none=True)
    left.note_asked(none=False)
    assert unasked_in_a_row(left) == 0
    left.note_asked(none=True)
    assert unasked_in_a_row(left) <= 1


def test_that_nothing_is_left_is_believed_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "FRESH_S", 60)
    left = Leftovers()
    assert not left.are_none()
    left.note(none=True)
    assert left.are_none()
    left.note(none=False)
    assert not left.are_none()
    left.note(none=True)
    monkeypatch.setattr(leftovers, "FRESH_S", 0)
    assert not left.are_none()
