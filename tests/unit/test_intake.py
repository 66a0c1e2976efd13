"""Who claims what, and that a suspect is alone whatever is being read."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from despacho.job.v1.job_pb2 import DeadLetter, Job, Reply
from dispatch.errors import BrokerUnavailable
from dispatch.jobs import CALL_PRIORITIES, Claim, Completion, Priority, Room
from dispatch.work_queue import Reclaimed
from telemetry.metrics_catalogue import IMAGES, REDELIVERIES
from worker import intake, operations_intake
from worker.batch_cost import BatchCost
from worker.in_hand import InHand
from worker.intake import Intake
from worker.operations_intake import OperationsIntake

LIMIT_S = 10.0


class Queue:
    """Reads block until the test lets something arrive; everything is written down."""

    model = "colours"
    worker = "w"

    def __init__(self, in_hand: InHand) -> None:
        self._in_hand = in_hand
        self._changed = threading.Condition()
        self._is_closed = False
        self._arrived: list[Claim] = []
        self._faults = 0
        self.reading: set[Priority] = set()
        self.rooms: dict[Priority, Room] = {}
        self.reads = 0
        self.given_back: list[Claim] = []
        self.suspects: list[Claim] = []
        self.company: list[tuple[int, set[Priority]]] = []
        """At each taking of a suspect: how many are in hand, and which reads are under way."""
        self.reclaims: list[int] = []
        self.letters: list[DeadLetter] = []

    def claim(
        self, priorities: Sequence[Priority], room: Room, *, block: bool, at_once: int = 1
    ) -> list[Claim]:
        assert block
        assert at_once >= 1
        if not room:
            return []
        with self._changed:
            if self._faults:
                self._faults -= 1
                raise BrokerUnavailable("away")
            self.reading |= set(priorities)
            self.reads += 1
            self.rooms |= dict.fromkeys(priorities, room)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._is_closed or self._of(priorities), LIMIT_S)
            self.reading -= set(priorities)
            claims = self._of(priorities)
            self._arrived = [claim for claim in self._arrived if claim not in claims]
            self._changed.notify_all()
            return claims

    def _of(self, priorities: Sequence[Priority]) -> list[Claim]:
        return [claim for claim in self._arrived if claim.priority in priorities]

    def reclaim(self, *, room: int, take_suspect: bool) -> Reclaimed:
        with self._changed:
            self.reclaims.append(room)
            taken, self.given_back = self.given_back[:room], self.given_back[room:]
            if take_suspect and self.suspects:
                self.company.append((len(self._in_hand), set(self.reading)))
                taken.append(self.suspects.pop(0))
            self._changed.notify_all()
            return Reclaimed(taken, has_suspects=bool(self.suspects))

    def quarantine(
        self, claim: Claim, reply: Reply, letter: DeadLetter, max_bytes: int
    ) -> Completion:
        del claim, reply, max_bytes
        self.letters.append(letter)
        return Completion.PUBLISHED

    def arrive(self, *claims: Claim) -> None:
        with self._changed:
            self._arrived += claims
            self._changed.notify_all()

    def fail(self, count: int) -> None:
        self._faults = count

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def until(self, is_so: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(is_so, LIMIT_S)


class Decoders:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.submitted: list[Claim] = []
        self._changed = threading.Condition()

    def submit(self, claims: Sequence[Claim]) -> None:
        with self._changed:
            self.submitted += claims
            self._changed.notify_all()

    def until_given(self, claim: Claim) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: claim in self.submitted, LIMIT_S)


class House:
    """Both intakes with everything around them in memory."""

    def __init__(self) -> None:
        self.in_hand = InHand(max_jobs=4, max_bytes=1000)
        self.queue, self.decoders = Queue(self.in_hand), Decoders()
        self.operations = OperationsIntake(
            self.queue,  # type: ignore[arg-type]
            self.in_hand,
            self.decoders,  # type: ignore[arg-type]
        )
        self.intake = Intake(
            self.queue,  # type: ignore[arg-type]
            self.in_hand,
            self.decoders,  # type: ignore[arg-type]
            self.operations,
            BatchCost(1),
            max_deliveries=3,
            dead_letter_max_bytes=0,
        )

    @contextmanager
    def running(self, *parts: Intake | OperationsIntake) -> Iterator[None]:
        threads = [threading.Thread(target=part.run) for part in parts]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.intake.stop()
            self.operations.stop()
            self.queue.close()
            for thread in threads:
                thread.join(LIMIT_S)
        assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    for module in (intake, operations_intake):
        monkeypatch.setattr(module, "PAUSE_S", 0)
    return House()


def claim(number: int, priority: Priority = Priority.NORMAL, *, attempt: int = 1) -> Claim:
    return Claim(Job(id=str(number)), b"", priority, f"{number}-0", attempt, 0, 10)


def operation(number: int, *, attempt: int = 1) -> Claim:
    return claim(number, Priority.OPERATION, attempt=attempt)


def test_calls_and_operations_are_read_beside_each_other(house: House) -> None:
    with house.running(house.intake, house.operations):
        house.queue.until(lambda: house.queue.reading == set(Priority))
        house.queue.arrive(operation(1))
        house.decoders.until_given(operation_of(house, 1))
        house.queue.arrive(claim(2))
        house.queue.until(lambda: house.queue.rooms[Priority.NORMAL] == Room(3, 990))
        house.queue.until(lambda: Priority.OPERATION in house.queue.reading)
    assert [one.job.id for one in house.decoders.submitted] == ["1", "2"]


def operation_of(house: House, number: int) -> Claim:
    house.queue.until(lambda: house.queue.reads > 2)
    return next(one for one in house.in_hand.snapshot() if one.job.id == str(number))


def test_operations_are_claimed_into_the_room_that_calls_leave(house: House) -> None:
    house.in_hand.add([claim(1), operation(2)])
    with house.running(house.intake, house.operations):
        house.queue.until(lambda: house.queue.reading == set(Priority))
    assert house.queue.rooms[Priority.OPERATION] == Room(2, 980)
    assert {house.queue.rooms[priority] for priority in CALL_PRIORITIES} == {Room(3, 990)}


@pytest.mark.parametrize("suspect", [claim(9, attempt=2), operation(9, attempt=2)])
def test_a_suspect_is_alone_though_operations_are_being_read(house: House, suspect: Claim) -> None:
    queue = house.queue
    with house.running(house.operations):
        queue.until(lambda: Priority.OPERATION in queue.reading)
        queue.suspects = [suspect]
        with house.running(house.intake):
            queue.until(lambda: queue.reclaims)
            first = operation(1)
            queue.arrive(first)  # while a suspect is wanted: claimed, and first to end
            house.decoders.until_given(first)
            assert queue.company == []
            house.in_hand.remove([first])
            house.decoders.until_given(suspect)
            assert queue.company == [(0, set())]
            assert house.in_hand.snapshot() == [suspect]
            reads = queue.reads
            house.in_hand.remove([suspect])
            queue.until(lambda: queue.reading == set(Priority))
            assert reads == 1  # none while it was wanted, none while it was in hand


def test_operations_wait_while_there_are_more_suspects(house: House) -> None:
    queue = house.queue
    suspects = [claim(1, attempt=2), operation(2, attempt=2)]
    queue.suspects = list(suspects)
    with house.running(house.intake):
        house.decoders.until_given(suspects[0])
        with house.running(house.operations):
            house.in_hand.remove([suspects[0]])
            house.decoders.until_given(suspects[1])
            assert queue.reads == 0
            house.in_hand.remove([suspects[1]])
            queue.until(lambda: queue.reading == set(Priority))
    assert queue.company == [(0, set()), (0, set())]


def test_stopping_does_not_wait_for_a_suspect(house: House) -> None:
    house.operations.hold()
    with house.running(house.operations):
        pass
    assert house.queue.reads == 0


def test_a_broker_that_comes_back_is_read_again(house: House) -> None:
    house.queue.fail(4)
    with house.running(house.intake, house.operations):
        house.queue.until(lambda: house.queue.reading == set(Priority))


def test_a_read_that_fails_does_not_hold_a_suspect_up(house: House) -> None:
    house.queue.fail(1)
    with house.running(house.operations):
        house.queue.until(lambda: Priority.OPERATION in house.queue.reading)
    house.operations.hold()


def test_what_was_given_back_is_taken_beside_operations(house: House) -> None:
    house.in_hand.add([operation(number) for number in range(4)])
    back = claim(9)
    house.queue.given_back = [back]
    with house.running(house.intake):
        house.decoders.until_given(back)
    assert house.queue.reclaims[0] == 4


def test_a_job_that_killed_its_workers_is_set_aside(house: House) -> None:
    before = counted()
    house.queue.suspects = [claim(1, attempt=3)]
    with house.running(house.intake, house.operations):
        house.queue.until(lambda: house.queue.letters)
        house.queue.until(lambda: house.queue.reading == set(Priority))
    assert house.decoders.submitted == []
    assert [letter.deliveries for letter in house.queue.letters] == [2]
    assert len(house.in_hand) == 0
    assert counted() - before == {"poisoned": 1, "taken again": 1}


def counted() -> Counter[str]:
    """Return what the metrics say of jobs whose workers were lost."""
    poisoned = IMAGES.read().get((Queue.model, "poisoned"), (0,))
    again = REDELIVERIES.read().get((Queue.model,), (0,))
    return Counter({"poisoned": int(poisoned[0]), "taken again": int(again[0])})
