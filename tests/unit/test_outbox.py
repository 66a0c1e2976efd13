"""Answers wait for others where their images waited longer."""

import pytest

from despacho.job.v1.job_pb2 import Job, Reply
from dispatch.jobs import Claim, Outcome, Priority
from dispatch.retiring import Ended
from worker.outbox import MOST_ANSWERS, MOST_S, Outbox, patience_s


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answers(count: int, *, first: int = 0) -> list[Ended]:
    return [
        (Claim(Job(), b"", Priority.NORMAL, f"{number}-0", 1, 0, 1), Reply(), Outcome.COMPLETED)
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize(
    ("queued_s", "left_s", "expected"),
    [(0, 10, 0), (0.04, 10, 0.02), (0.04, 0.02, 0.01), (0.04, -1, -0.5), (100, 100, MOST_S)],
)
def test_patience_is_a_share_of_what_was_waited_and_of_what_is_left(
    queued_s: float, left_s: float, expected: float
) -> None:
    assert patience_s(queued_s, left_s) == pytest.approx(expected)


def test_an_empty_outbox_has_nothing_to_wait_with() -> None:
    assert not Outbox(Clock()).may_wait(0)


def test_the_least_patient_decides_and_what_waits_grows_less_patient() -> None:
    clock = Clock()
    box = Outbox(clock)
    box.add(answers(1), 0.03)
    box.add(answers(1, first=1), 0.05)
    assert box.may_wait(0.02)
    assert not box.may_wait(0.04)
    clock.now += 0.02
    assert not box.may_wait(0.02)
    assert box.may_wait(0.005)


def test_nothing_waits_for_a_batch_of_unknown_length() -> None:
    box = Outbox(Clock())
    box.add(answers(1), 0.03)
    assert not box.may_wait(None)


def test_enough_answers_do_not_wait() -> None:
    box = Outbox(Clock())
    box.add(answers(MOST_ANSWERS - 1), 1)
    assert box.may_wait(0)
    box.add(answers(1), 1)
    assert not box.may_wait(0)


def test_what_is_taken_is_gone_with_its_patience() -> None:
    box = Outbox(Clock())
    first, second = answers(2), answers(1, first=2)
    box.add(first, 0)
    assert box.claims() == [claim for claim, _, _ in first]
    assert box.take() == first
    assert box.claims() == []
    assert box.take() == []
    box.add(second, 1)
    assert box.may_wait(0.5)
    assert box.take() == second
