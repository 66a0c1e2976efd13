"""What a worker tells of jobs that are not answered: a span, and a line of the log."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from despacho.job.v1.job_pb2 import DeadLetter, Job, Reply
from dispatch.jobs import Claim, Completion, Outcome, Priority
from telemetry import tracing, tracing_sdk
from worker.batch_cost import BatchCost
from worker.in_hand import InHand
from worker.intake import Intake
from worker.publisher import Publisher
from worker.sieve import Sieve

TRACE_ID = "4b" * 16
SAMPLED, UNSAMPLED = (f"00-{TRACE_ID}-{'7a' * 8}-{flags}" for flags in ("01", "00"))
NOW_MS = 5000
IDS = {"request_id": "mine", "trace_id": TRACE_ID, "model": "colours"}

Lines = list[MutableMapping[str, Any]]


class Queue:
    """Says the time, and agrees to everything."""

    worker = "w"
    model = "colours"

    def now_ms(self) -> float:
        return NOW_MS

    def quarantine(self, claim: Claim, reply: Reply, letter: DeadLetter, size: int) -> Completion:
        del claim, reply, letter, size
        return Completion.PUBLISHED

    def complete_and_renew(
        self, ended: list[Any], claims: list[Any]
    ) -> tuple[list[Completion], list[Claim]]:
        del claims
        return [Completion.PUBLISHED for _ in ended], []


class Nobody:
    """Takes replies, and does nothing with them."""

    def publish(self, ended: object) -> None:
        del ended


class Sent(InMemorySpanExporter):
    """What a worker sent."""

    def all(self) -> list[ReadableSpan]:
        """Return the spans, once the tracer has sent them."""
        assert tracing.tracer is not None
        assert tracing.tracer.close(within_s=10)
        return [*self.get_finished_spans()]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    exporter = Sent()
    monkeypatch.setattr(tracing_sdk, "_exporter", lambda _: exporter)
    tracer = tracing_sdk.Tracer("despacho-worker", instance="w")
    monkeypatch.setattr(tracing, "tracer", tracer)
    return exporter


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def claim(*, attempt: int = 1, deadline_ms: int = NOW_MS + 1, traceparent: str = SAMPLED) -> Claim:
    job = Job(id="job", request_id="mine", model="colours", traceparent=traceparent)
    return Claim(job, b"photo", Priority.NORMAL, "4000-0", attempt, deadline_ms, 5)


def sieve(in_hand: InHand) -> Sieve:
    return Sieve(Queue(), in_hand, Nobody())  # type: ignore[arg-type]


def in_hand_with(held: Claim) -> InHand:
    in_hand = InHand(max_jobs=1, max_bytes=5)
    in_hand.add([held])
    return in_hand


def intake(in_hand: InHand) -> Intake:
    queue: Any = Queue()
    nobody: Any = Nobody()
    return Intake(
        queue, in_hand, nobody, nobody, BatchCost(8), max_deliveries=3, dead_letter_max_bytes=5
    )


def test_a_wait_in_vain_is_told_with_its_cause(sent: Sent, lines: Lines) -> None:
    late, left = claim(deadline_ms=NOW_MS), claim()
    in_hand = in_hand_with(left)
    in_hand.mark_lost([left])
    assert not sieve(InHand(max_jobs=1, max_bytes=5)).passes(late, "decode")
    assert not sieve(in_hand).passes(left, "decode")
    spans = sent.all()
    assert [span.name for span in spans] == ["queue wait", "queue wait"]
    assert [dict(span.attributes or {})["error.type"] for span in spans] == ["EXPIRED", "CANCELLED"]
    for span in spans:
        assert span.start_time is not None
        assert span.end_time == span.start_time + 1_000_000_000
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert [line["cause"] for line in lines] == ["expired", "cancelled"]
    for line in lines:
        assert (line["event"], line["log_level"]) == ("job dropped", "debug")
        assert line.items() >= IDS.items()


def test_a_job_that_is_dropped_after_its_decoding_has_been_told_of_its_wait(sent: Sent) -> None:
    assert not sieve(InHand(max_jobs=1, max_bytes=5)).passes(claim(deadline_ms=NOW_MS), "inference")
    assert sent.all() == []


def test_a_job_that_is_set_aside_is_told_with_its_deliveries(sent: Sent, lines: Lines) -> None:
    held = claim(attempt=3)
    intake(in_hand_with(held))._take([held])
    [span] = sent.all()
    told = dict(span.attributes or {})
    assert (span.name, told["error.type"], told["despacho.attempt"]) == (
        "queue wait",
        "JOB_POISONED",
        3,
    )
    taken_over, set_aside = lines
    assert (taken_over["event"], taken_over["log_level"]) == ("job taken over", "warning")
    assert (set_aside["event"], set_aside["deliveries"]) == ("job set aside", 2)
    assert all(line.items() >= IDS.items() for line in lines)


def test_a_job_of_a_trace_that_is_not_chosen_is_not_told(sent: Sent) -> None:
    for traceparent in ("", UNSAMPLED):
        held = claim(deadline_ms=NOW_MS, traceparent=traceparent)
        assert not sieve(in_hand_with(held)).passes(held, "decode")
    assert sent.all() == []


def test_each_job_that_is_over_leaves_a_line_for_those_who_look_closely(lines: Lines) -> None:
    held = claim()
    store: Any = Queue()
    publisher = Publisher(store, in_hand_with(held))
    publisher.publish([(held, Reply(), Outcome.COMPLETED)])
    publisher.stop()
    publisher.run()
    [line] = lines
    assert (line["event"], line["log_level"]) == ("job", "debug")
    assert (line["outcome"], line["completion"]) == ("completed", "published")
    assert line.items() >= IDS.items()
