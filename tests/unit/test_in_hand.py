"""What a worker may hold at once."""

from despacho.job.v1.job_pb2 import Job
from dispatch.jobs import Claim, Priority
from worker.in_hand import InHand


def claim(number: int, *, attempt: int = 1, size: int = 10) -> Claim:
    return Claim(Job(), b"", Priority.NORMAL, f"{number}-0", attempt, 0, size)


def test_room_shrinks_with_what_is_held() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    assert hand.wait_for_room(0) == (4, 100)
    hand.add([claim(1), claim(2)])
    assert hand.wait_for_room(0) == (2, 80)
    hand.remove([claim(1)])
    assert hand.wait_for_room(0) == (3, 90)


def test_there_is_no_room_beyond_the_jobs_or_the_bytes() -> None:
    hand = InHand(max_jobs=2, max_bytes=100)
    hand.add([claim(1), claim(2)])
    assert hand.wait_for_room(0) == (0, 0)
    hand = InHand(max_jobs=4, max_bytes=100)
    hand.add([claim(1, size=100)])
    assert hand.wait_for_room(0) == (0, 0)


def test_a_suspect_is_alone() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    suspect = claim(1, attempt=2)
    hand.add([suspect])
    assert hand.wait_for_room(0) == (0, 0)
    hand.remove([suspect])
    assert hand.wait_for_room(0) == (4, 100)


def test_removing_twice_counts_once() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    hand.add([claim(1)])
    hand.remove([claim(1)])
    hand.remove([claim(1)])
    assert hand.wait_for_room(0) == (4, 100)


def test_lost_jobs_are_held_but_not_ours() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    lost, kept = claim(1), claim(2)
    hand.add([lost, kept])
    hand.mark_lost(["1-0", "9-0"])
    assert hand.is_lost(lost)
    assert hand.snapshot() == [kept]
    hand.remove([lost])
    assert not hand.is_lost(lost)


def test_waiting_for_empty_hands() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    assert hand.wait_until_empty(0)
    hand.add([claim(1)])
    assert not hand.wait_until_empty(0)
