"""What a worker may hold at once."""

import threading
from collections.abc import Callable

import pytest

from despacho.job.v1.job_pb2 import Job
from dispatch.jobs import Claim, Priority, Room
from worker.in_hand import InHand

NONE = Room(0, 0)


def claim(
    number: int, priority: Priority = Priority.NORMAL, *, attempt: int = 1, size: int = 10
) -> Claim:
    return Claim(Job(), b"", priority, f"{number}-0", attempt, 0, size)


def operations(count: int, *, size: int = 10) -> list[Claim]:
    return [claim(100 + number, Priority.OPERATION, size=size) for number in range(count)]


def test_room_shrinks_with_what_is_held() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    assert hand.wait_for_call_room(0) == hand.wait_for_operation_room(0) == Room(4, 100)
    hand.add([claim(1), claim(2)])
    assert hand.wait_for_call_room(0) == hand.wait_for_operation_room(0) == Room(2, 80)
    hand.remove([claim(1)])
    assert hand.wait_for_call_room(0) == hand.wait_for_operation_room(0) == Room(3, 90)


def test_what_is_answered_leaves_room_for_jobs_and_none_for_bytes() -> None:
    hand = InHand(max_jobs=2, max_bytes=100)
    hand.add([claim(1), claim(2)])
    hand.note_answered([claim(1), claim(7)])
    assert hand.wait_for_call_room(0) == NONE  # it is not worth to ask for one
    hand.note_answered([claim(2)])
    assert hand.wait_for_call_room(0) == hand.wait_for_operation_room(0) == Room(2, 80)
    hand.remove([claim(1), claim(2)])
    hand.add([claim(1), claim(2)])
    assert hand.wait_for_call_room(0) == NONE  # given back, and claimed again


@pytest.mark.parametrize("held", [[claim(1), claim(2)], [claim(1, size=100)]])
def test_there_is_no_room_beyond_the_jobs_or_the_bytes(held: list[Claim]) -> None:
    hand = InHand(max_jobs=2, max_bytes=100)
    hand.add(held)
    assert hand.wait_for_call_room(0) == NONE
    assert hand.wait_for_operation_room(0) == NONE


@pytest.mark.parametrize("held", [operations(4), operations(1, size=100)])
def test_calls_find_room_whatever_operations_are_held(held: list[Claim]) -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    hand.add(held)
    assert hand.wait_for_call_room(0) == Room(4, 100)
    assert hand.wait_for_operation_room(0) == NONE


def test_operations_fill_what_calls_leave() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    hand.add([claim(1), *operations(2)])
    assert hand.wait_for_call_room(0) == Room(3, 90)
    assert hand.wait_for_operation_room(0) == Room(1, 70)


def test_operations_find_no_room_beside_as_many_calls_as_there_may_be() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    hand.add([*operations(4), *(claim(number) for number in range(4))])
    assert hand.wait_for_call_room(0) == NONE
    hand.remove(operations(4))
    assert hand.wait_for_operation_room(0) == NONE


def test_jobs_given_back_find_room_beside_operations_but_not_without_end() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    assert hand.room_for_any() == 4
    hand.add(operations(4))
    assert hand.room_for_any() == 4
    hand.add(operations(7))
    assert hand.room_for_any() == 1
    hand.add(operations(9))
    assert hand.room_for_any() == 0


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.OPERATION])
def test_a_suspect_is_alone(priority: Priority) -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    suspect = claim(1, priority, attempt=2)
    hand.add([suspect])
    assert hand.wait_for_call_room(0) == NONE
    assert hand.wait_for_operation_room(0) == NONE
    assert hand.room_for_any() == 0
    hand.remove([suspect])
    assert hand.wait_for_call_room(0) == hand.wait_for_operation_room(0) == Room(4, 100)


def test_what_is_in_hand_already_is_not_new() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    first, second = claim(1), claim(2)
    assert hand.add([first]) == [first]
    assert hand.add([claim(1), second]) == [second]


@pytest.mark.parametrize(
    "make_room",
    [
        lambda hand: hand.remove([claim(1)]),
        lambda hand: hand.note_answered([claim(1)]),
        lambda hand: hand.allow(2),
    ],
    ids=["remove", "note_answered", "allow"],
)
def test_who_waits_for_room_is_woken_when_there_is_some(
    make_room: Callable[[InHand], None],
) -> None:
    hand = InHand(max_jobs=1, max_bytes=100)
    hand.add([claim(1)])
    waits = threading.Event()
    rooms: list[Room] = []
    changed = hand._changed
    look = changed.wait

    def noted(timeout: float | None = None) -> bool:
        waits.set()
        return look(timeout)

    changed.wait = noted  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: rooms.append(hand.wait_for_operation_room(60)))
    thread.start()
    assert waits.wait(10)
    make_room(hand)
    thread.join(10)
    assert [room.jobs for room in rooms] == [1]


def test_removing_twice_counts_once() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    hand.add([claim(1)])
    hand.remove([claim(1)])
    hand.remove([claim(1)])
    assert hand.wait_for_call_room(0) == Room(4, 100)


def test_lost_jobs_are_held_but_not_ours() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    lost, kept = claim(1), claim(2)
    hand.add([lost, kept])
    hand.mark_lost([claim(1), claim(9)])
    assert hand.is_lost(lost)
    assert hand.snapshot() == [kept]
    hand.remove([lost])
    assert not hand.is_lost(lost)


def test_jobs_of_one_millisecond_and_several_priorities_are_several_jobs() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    first, second = claim(1, Priority.HIGH), claim(1, Priority.NORMAL)
    assert hand.add([first, second]) == [first, second]
    third = claim(1, Priority.LOW)
    assert hand.add([third, claim(1, Priority.HIGH)]) == [third]
    assert hand.snapshot() == [first, second, third]
    hand.mark_lost([second])
    assert hand.snapshot() == [first, third]
    hand.note_answered([first])
    assert hand.wait_for_call_room(0) == Room(2, 70)
    hand.remove([first])
    assert hand.snapshot() == [third]
    assert hand.is_lost(second)


def test_waiting_for_empty_hands() -> None:
    hand = InHand(max_jobs=4, max_bytes=100)
    assert hand.wait_until_empty(0)
    hand.add([claim(1)])
    assert not hand.wait_until_empty(0)


@pytest.mark.parametrize(("most", "worthwhile"), [(1, 1), (4, 2), (18, 4)])
def test_calls_are_claimed_several_at_once(most: int, worthwhile: int) -> None:
    hand = InHand(max_jobs=most, max_bytes=1000)
    held = [claim(number) for number in range(most)]
    hand.add(held)
    hand.remove(held[: worthwhile - 1])
    assert hand.wait_for_call_room(0) == NONE
    hand.remove(held[worthwhile - 1 : worthwhile])
    assert hand.wait_for_call_room(0).jobs == worthwhile


def test_the_hands_grow_and_shrink_with_the_batches() -> None:
    hand = InHand(max_jobs=2, max_bytes=100)
    hand.add([claim(1), claim(2)])
    hand.allow(6)
    assert hand.wait_for_call_room(0) == hand.wait_for_operation_room(0) == Room(4, 80)
    hand.allow(1)
    assert hand.wait_for_call_room(0) == NONE
