"""What the keeper tells, and whom, while the broker comes and goes."""

import threading
from collections.abc import Sequence

import pytest
import structlog

from despacho.job.v1.job_pb2 import Job, ModelCard, WorkerCard
from dispatch.errors import BrokerUnavailable
from dispatch.jobs import Claim, Priority
from worker import keeper as module
from worker.in_hand import InHand
from worker.keeper import Keeper
from worker.work_done import WorkDone

LIMIT_S = 10.0


class FakeQueue:
    """A broker that hears of workers; away as often as it was told."""

    worker = "worker-1"

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.heard: list[WorkerCard] = []
        self.news: list[tuple[bool, bool]] = []
        """Of each try, whether the cards have changed, and whether that of the worker has."""

        self.renewed: list[list[Claim]] = []
        self.taken_over: list[Claim] = []

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        self.renewed.append(list(claims))
        return self.taken_over

    def announce(
        self, worker: WorkerCard, model: ModelCard, *, has_changed: bool, has_worked: bool
    ) -> float:
        assert model.name == "m"
        self.news.append((has_changed, has_worked))
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("away")
        told = WorkerCard()
        told.CopyFrom(worker)
        self.heard.append(told)
        return 0.001


def keeper_of(queue: FakeQueue, *held: Claim) -> tuple[Keeper, InHand]:
    in_hand = InHand(max_jobs=2, max_bytes=100)
    in_hand.add(held)
    keeper = Keeper(queue, in_hand, WorkDone(), ModelCard(name="m"))  # type: ignore[arg-type]
    return keeper, in_hand


def claim(entry_id: str) -> Claim:
    return Claim(Job(), b"", Priority.NORMAL, entry_id, 1, 0, 10)


def test_each_beat_renews_what_is_in_hand_until_others_have_it() -> None:
    queue = FakeQueue()
    first, second = claim("1-0"), claim("2-0")
    keeper, in_hand = keeper_of(queue, first, second)
    keeper.beat()
    queue.taken_over = [first]
    keeper.beat()
    assert in_hand.is_lost(first)
    assert not in_hand.is_lost(second)
    keeper.beat()
    assert queue.renewed == [[first, second], [first, second], [second]]


def test_leases_are_renewed_though_the_broker_does_not_hear_of_the_worker() -> None:
    queue = FakeQueue(away=1)
    held = claim("1-0")
    keeper, _ = keeper_of(queue, held)
    with pytest.raises(BrokerUnavailable):
        keeper.beat()
    assert queue.renewed == [[held]]


def test_a_worker_is_ready_only_when_the_broker_has_heard_of_it() -> None:
    queue = FakeQueue()
    keeper, _ = keeper_of(queue)
    listed: list[WorkerCard] = []
    keeper.beat()
    keeper.set_ready(lambda: listed.append(queue.heard[-1]))
    queue.away = 1
    with pytest.raises(BrokerUnavailable):
        keeper.beat()
    assert not listed
    for _ in range(3):
        keeper.beat()
    assert [card.ready for card in listed] == [True]
    assert [card.ready for card in queue.heard] == [False, True, True, True]


def test_cards_are_written_again_only_when_they_have_changed_or_were_not_heard() -> None:
    queue = FakeQueue(away=1)
    keeper, in_hand = keeper_of(queue)
    with pytest.raises(BrokerUnavailable):
        keeper.beat()
    keeper.beat()
    keeper.beat()
    in_hand.add([claim("1-0")])
    keeper.beat()
    keeper.beat()
    keeper.set_ready(lambda: None)
    keeper.beat()
    assert queue.news == [
        *((True, True), (True, True), (False, False)),
        *((False, True), (False, False), (True, True)),
    ]


def test_between_two_beats_it_rests_and_its_end_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 60)
    queue = FakeQueue()
    keeper, _ = keeper_of(queue)
    is_listed = threading.Event()
    thread = threading.Thread(target=keeper.run)
    thread.start()
    keeper.set_ready(is_listed.set)
    assert is_listed.wait(LIMIT_S)
    thread.join(0.1)
    keeper.stop()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert len(queue.heard) <= 3


def test_an_outage_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0)
    queue = FakeQueue(away=20)
    keeper, _ = keeper_of(queue)
    is_back = threading.Event()
    keeper.set_ready(is_back.set)
    with structlog.testing.capture_logs() as lines:
        thread = threading.Thread(target=keeper.run)
        thread.start()
        assert is_back.wait(LIMIT_S)
        keeper.stop()
        thread.join(LIMIT_S)
    assert [line["event"] for line in lines] == ["broker unavailable", "broker available again"]
    assert {line["suffers"] for line in lines} == {"heartbeat"}
