"""How large a batch of operations may be while calls are about."""

import pytest

from worker.politeness import CALLS_ABOUT_S, TRIED_AFTER, Politeness


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def polite(one_s: float, more_s: float, *, clock: Clock | None = None) -> Politeness:
    politeness = Politeness(16, clock=clock or Clock())
    politeness.call_came()
    politeness.note(1, one_s)
    politeness.note(9, one_s + 8 * more_s)
    return politeness


def test_without_calls_batches_are_full() -> None:
    politeness = Politeness(16)
    politeness.note(1, 1.0)
    politeness.note(16, 16.0)
    assert politeness.batch_size() == 16


def test_calls_are_forgotten_after_a_while() -> None:
    clock = Clock()
    politeness = polite(1.0, 1.0, clock=clock)
    assert politeness.batch_size() == 1
    clock.now_s = CALLS_ABOUT_S + 0.1
    assert politeness.batch_size() == 16


@pytest.mark.parametrize(
    ("more_s", "size"), [(1.0, 1), (0.5, 2), (0.25, 3), (0.1, 6), (0.01, 16), (0.0, 16), (-0.1, 16)]
)
def test_a_batch_takes_at_most_half_as_long_again_as_one_image(more_s: float, size: int) -> None:
    assert polite(1.0, more_s).batch_size() == size


def test_what_is_not_known_is_tried_in_small() -> None:
    politeness = Politeness(16)
    politeness.call_came()
    assert politeness.batch_size() == 1
    politeness.note(8, 1.0)  # says nothing as long as nobody knows what one image takes
    assert politeness.batch_size() == 1
    politeness.note(1, 1.0)
    assert politeness.batch_size() == 2


def test_the_newest_times_count_more_and_more() -> None:
    politeness = polite(1.0, 0.0)
    for _ in range(50):
        politeness.note(2, 2.0)
    assert politeness.batch_size() == 1


def test_one_that_was_disturbed_does_not_count_for_ever() -> None:
    politeness = polite(1.0, 0.0)
    for _ in range(5):
        politeness.note(2, 100.0)
    assert politeness.batch_size() == 1
    sizes = [run_once(politeness) for _ in range(6 * TRIED_AFTER)]
    assert sizes[: TRIED_AFTER + 1] == [1] * TRIED_AFTER + [2]
    assert sizes[-1] > 2


def run_once(politeness: Politeness) -> int:
    """Run as large a batch as may be, which takes as long as one image; return its size."""
    size = politeness.batch_size()
    politeness.note(size, 1.0)
    return size


def test_two_are_tried_seldom_where_each_image_takes_its_time() -> None:
    politeness = polite(1.0, 1.0)
    sizes = []
    for _ in range(10 * TRIED_AFTER):
        sizes.append(politeness.batch_size())
        politeness.note(sizes[-1], 1.0 * sizes[-1])
    assert sizes.count(2) == sizes.count(1) // TRIED_AFTER
