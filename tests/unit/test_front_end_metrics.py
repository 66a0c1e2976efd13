"""What a front-end knows anyway, as metrics."""

import time

import pytest

from despacho.job.v1.job_pb2 import FrontEndCard, Reply, WorkerCard
from dispatch.jobs import Priority
from dispatch.link import Link
from dispatch.stats_store import ModelStats, QueueLook
from server.front_end_metrics import REASONS, STALE_S, Looks, answers, failures, shown
from server.pending import PendingReplies
from server.redis_clock import MOST_ROUND_TRIP_S, RedisClock
from server.samples import Sample
from server.tally import Tally
from telemetry.metrics_catalogue import ANSWER_EDGES_S, LATE_REPLIES

MODEL = "colours"


class Watch:
    """A look at the system of some age."""

    def __init__(self, *, age_s: float = 0.0) -> None:
        worker = WorkerCard(worker="a", ready=True), WorkerCard(worker="b")
        stats = ModelStats(
            queues={Priority.HIGH: QueueLook(entries=5, claimed=2, oldest_ms=1500)},
            size_bytes=77,
            ended=0,
            workers={card.worker: card for card in worker},
        )
        self.sample = Sample(time.monotonic() - age_s, time.time(), {MODEL: stats}, {})

    def latest(self) -> Sample | None:
        return self.sample


def test_queues_and_workers_are_as_they_were_last_seen() -> None:
    looks = Looks(Watch())
    assert dict(looks.jobs()) == {
        (MODEL, "high", "waiting"): (3,),
        (MODEL, "high", "claimed"): (2,),
    }
    assert dict(looks.oldest()) == {(MODEL, "high"): (1.5,)}
    assert dict(looks.size()) == {(MODEL,): (77,)}
    assert dict(looks.workers()) == {(MODEL, "ready"): (1,), (MODEL, "loading"): (1,)}


def test_what_was_once_true_is_not_shown() -> None:
    looks = Looks(Watch(age_s=STALE_S + 1))
    assert not [*looks.jobs(), *looks.oldest(), *looks.size(), *looks.workers()]


@pytest.mark.parametrize(("seconds", "edge"), [(0.0005, 0.001), (0.001, 0.001), (0.0011, 0.002)])
def test_answers_are_below_the_next_edge(seconds: float, edge: float) -> None:
    tally = Tally()
    tally.answered(MODEL, seconds)
    tally.write_to(FrontEndCard(), [MODEL])
    *counts, total = dict(answers(tally))[(MODEL,)]
    assert [bool(count) for count in counts].index(True) == ANSWER_EDGES_S.index(edge)
    assert (sum(counts), total) == (1, seconds)


def test_an_answer_that_took_longer_than_any_edge_is_counted() -> None:
    tally = Tally()
    tally.answered(MODEL, 1000)
    tally.write_to(FrontEndCard(), [MODEL])
    *counts, _ = dict(answers(tally))[(MODEL,)]
    assert counts == [0] * len(ANSWER_EDGES_S) + [1]


def test_every_reason_of_a_model_is_there_from_the_start() -> None:
    tally = Tally()
    tally.write_to(FrontEndCard(), [MODEL])
    found = dict(failures(tally))
    assert {reason for model, reason in found if model == MODEL} == set(REASONS)
    assert set(found.values()) == {(0,)}


def test_models_that_callers_make_up_are_none() -> None:
    tally = Tally()
    tally.failed("made up", "MODEL_NOT_FOUND")
    assert not_found(tally) == {"": 0}
    tally.write_to(FrontEndCard(), [MODEL])
    assert not_found(tally) == {"": 1, MODEL: 0}


def test_what_failed_for_a_model_does_not_count_again_when_it_is_forgotten() -> None:
    tally = Tally()
    tally.failed(MODEL, "MODEL_NOT_FOUND")
    tally.write_to(FrontEndCard(), [MODEL])
    assert not_found(tally) == {"": 0, MODEL: 1}
    tally.write_to(FrontEndCard(), [])
    assert not_found(tally) == {"": 0, MODEL: 1}
    # For whoever still names it, and after it has come back.
    tally.failed(MODEL, "MODEL_NOT_FOUND")
    tally.write_to(FrontEndCard(), [])
    assert not_found(tally) == {"": 0, MODEL: 2}
    tally.write_to(FrontEndCard(), [MODEL])
    assert not_found(tally) == {"": 0, MODEL: 2}


def test_no_count_falls_when_a_model_is_forgotten() -> None:
    tally, card, later = Tally(), FrontEndCard(), FrontEndCard()
    tally.answered(MODEL, 0.1)
    tally.write_to(card, [MODEL])
    before = dict(answers(tally))
    tally.write_to(later, [])
    assert dict(answers(tally)) == before
    # So that they are not new to those who watch when the model comes back.
    assert later == card


def test_late_replies_are_still_counted_in_the_last_figures_of_a_process() -> None:
    pending = PendingReplies(max_jobs=1, max_bytes=1)
    with shown(pending, Watch(), Link()):
        before = LATE_REPLIES.read()[()][0]
        pending.deliver(Reply(job_id="nobody's"))
    # Written for the parent when this is over.
    assert LATE_REPLIES.read()[()] == (before + 1,)


def not_found(tally: Tally) -> dict[str, float]:
    return {
        model: values[0]
        for (model, reason), values in failures(tally)
        if reason == "MODEL_NOT_FOUND"
    }


def test_the_clock_of_redis_is_the_middle_of_a_round_trip() -> None:
    clock = RedisClock()
    assert clock.since_s(0) is None
    now = time.monotonic()
    clock.note(5_000_000, sent_s=now - 0.02, heard_s=now)
    since_s = clock.since_s(4_000)
    assert since_s is not None
    assert since_s >= 1.01
    clock.note(9_000_000, sent_s=now - MOST_ROUND_TRIP_S - 1, heard_s=now)
    again_s = clock.since_s(4_000)
    assert again_s is not None
    assert again_s < 5
    assert clock.since_s(1 << 50) == 0
