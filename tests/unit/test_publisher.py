"""Replies reach Redis in the end; what nobody wanted is counted."""

from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from despacho.job.v1.job_pb2 import Failure, Job, Reply
from dispatch.errors import BrokerUnavailable, ImageUndecodable, InferenceFailed
from dispatch.jobs import Claim, Completion, Outcome, Priority
from dispatch.retiring import Ended
from telemetry.metrics import Waste
from telemetry.metrics_catalogue import IMAGES
from worker import publisher
from worker.in_hand import InHand
from worker.publisher import Publisher


class Store:
    """Completes as it is told to; `None`: it cannot be reached."""

    model = "publisher"

    def __init__(self, *outcomes: Completion | None) -> None:
        self._outcomes = list(outcomes)
        self.lost: list[Claim] = []
        self.asked: list[Claim] = []
        self.publisher = Publisher(self, IN_HAND)  # type: ignore[arg-type]

    def complete_and_renew(
        self, ended: Sequence[Ended], claims: Sequence[Claim]
    ) -> tuple[list[Completion], list[Claim]]:
        self.asked = list(claims)
        completion = self._outcomes.pop(0)
        if not self._outcomes:
            self.publisher.stop()
        if completion is None:
            raise BrokerUnavailable("away")
        return [completion for _ in ended], self.lost


IN_HAND = InHand(max_jobs=4, max_bytes=100)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "PAUSE_S", 0)


def ended(outcome: Outcome = Outcome.COMPLETED) -> Ended:
    return claim("1-0"), Reply(), outcome


def claim(entry_id: str, priority: Priority = Priority.NORMAL) -> Claim:
    return Claim(Job(), b"", priority, entry_id, 1, 0, 10)


def wasted() -> dict[Waste, float]:
    return {cause: sample(cause) for cause in ("too_late", "orphaned")}


def sample(cause: Waste) -> float:
    labels = {"model": Store.model, "cause": cause}
    return REGISTRY.get_sample_value("despacho_work_wasted_total", labels) or 0


def counted(*completions: Completion | None, outcome: Outcome = Outcome.COMPLETED) -> set[Waste]:
    """Return what was counted as wasted while one reply was published."""
    before = wasted()
    store = Store(*completions)
    one = ended(outcome)
    IN_HAND.add([one[0]])
    store.publisher.publish([one])
    store.publisher.run()
    assert len(IN_HAND) == 0
    return {cause for cause, value in wasted().items() if value == before[cause] + 1}


def test_an_answer_that_is_taken_is_no_waste() -> None:
    assert counted(Completion.PUBLISHED) == set()


def test_an_answer_that_comes_too_late_is_waste() -> None:
    assert counted(Completion.TOO_LATE) == {"too_late"}


def test_an_answer_that_nobody_can_take_is_waste() -> None:
    assert counted(Completion.ORPHANED) == {"orphaned"}


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.FAILED])
@pytest.mark.parametrize("completion", [Completion.TOO_LATE, Completion.ORPHANED])
def test_what_was_not_inferred_is_no_waste(outcome: Outcome, completion: Completion) -> None:
    assert counted(completion, outcome=outcome) == set()


@pytest.mark.parametrize(
    ("reason", "shown_as"),
    [(InferenceFailed.reason, "inference_failed"), (ImageUndecodable.reason, "failed")],
)
def test_that_the_model_failed_is_told_apart_from_bad_images(reason: str, shown_as: str) -> None:
    def shown() -> float:
        return IMAGES.read().get((Store.model, shown_as), (0,))[0]

    before = shown()
    store = Store(Completion.PUBLISHED)
    reply = Reply(failure=Failure(reason=reason))
    store.publisher.publish_now([(claim("1-0"), reply, Outcome.FAILED)])
    assert shown() == before + 1


def test_a_repeated_completion_may_be_too_late_because_of_the_first() -> None:
    assert counted(None, Completion.TOO_LATE) == set()


def test_a_repeated_completion_that_is_orphaned_was_so_only_once() -> None:
    assert counted(None, None, Completion.ORPHANED) == {"orphaned"}


def test_with_replies_it_is_asked_what_else_is_wanted() -> None:
    store = Store(Completion.PUBLISHED)
    one, others = ended(), [claim("1-0", Priority.HIGH), claim("3-0")]
    store.lost = others[1:]
    IN_HAND.add([one[0], *others])
    store.publisher.publish_and_look([one])
    # What is answered here is not lost.
    assert store.asked == others
    assert [IN_HAND.is_lost(each) for each in others] == [False, True]
    assert len(IN_HAND) == 2
    IN_HAND.remove(others)


def test_without_a_look_nothing_else_is_asked() -> None:
    store = Store(Completion.PUBLISHED)
    one, other = ended(), claim("2-0")
    IN_HAND.add([one[0], other])
    store.publisher.publish_and_look([one], looks=False)
    assert store.asked == []
    IN_HAND.remove([other])


def test_replies_that_cannot_be_sent_at_once_are_sent_later() -> None:
    before = wasted()
    store = Store(None, Completion.TOO_LATE)
    one = ended()
    IN_HAND.add([one[0]])
    store.publisher.publish_and_look([one])
    assert len(IN_HAND) == 1
    store.publisher.run()
    assert len(IN_HAND) == 0
    # It may have been the first try that was taken.
    assert wasted() == before


def test_a_job_whose_answer_cannot_be_sent_leaves_no_room_for_others() -> None:
    store = Store(None, Completion.PUBLISHED, Completion.PUBLISHED)
    jobs = [claim(f"{number}-0") for number in range(4)]
    IN_HAND.add(jobs)
    IN_HAND.note_answered(jobs)
    assert IN_HAND.wait_for_call_room(0).jobs == 4
    ended_ones: list[Ended] = [(each, Reply(), Outcome.COMPLETED) for each in jobs]
    store.publisher.publish_and_look(ended_ones, looks=False)
    assert not IN_HAND.wait_for_call_room(0)
    store.publisher.publish_now(ended_ones)
    assert IN_HAND.wait_for_call_room(0).jobs == 4
