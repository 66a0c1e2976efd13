"""What a worker shows from its start, and what it knows anyway, as metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from despacho.job.v1.job_pb2 import Reply
from dispatch.errors import InferenceFailed
from dispatch.jobs import Outcome
from telemetry import metrics
from telemetry import metrics_catalogue as catalogue
from worker.in_hand import InHand

INFERENCE_FAILED: Final = "inference_failed"
OUTCOMES: Final = ("completed", "failed", INFERENCE_FAILED, "expired", "poisoned")


@contextmanager
def shown(model: str, in_hand: InHand) -> Iterator[None]:
    """Show the figures of a worker while inside; the counters begin at zero.

    Args:
        model: what it serves.
        in_hand: what it holds.
    """
    metrics.begin_at_zero(model, ("decode", "inference"), infers=True)
    for histogram in (
        *(catalogue.QUEUE_SECONDS, catalogue.DECODE_SECONDS),
        *(catalogue.INFERENCE_SECONDS, catalogue.BATCH_IMAGES),
    ):
        histogram.begin(model)
    for outcome in OUTCOMES:
        catalogue.IMAGES.begin(model, outcome)
    catalogue.REDELIVERIES.begin(model)
    for purpose in ("announce", "complete"):
        catalogue.REDIS_BROKEN.begin(purpose)

    def size_bytes() -> int:
        return sum(len(claim.image) for claim in in_hand.snapshot())

    with (
        catalogue.IN_HAND_JOBS.reading(lambda: [((model,), (len(in_hand),))]),
        catalogue.IN_HAND_BYTES.reading(lambda: [((model,), (size_bytes(),))]),
    ):
        yield


def outcome_of(reply: Reply, outcome: Outcome) -> str:
    """Return under which outcome an image is counted.

    That the model failed is told apart from bad images: of an operation nobody else tells it.
    """
    if reply.failure.reason == InferenceFailed.reason:
        return INFERENCE_FAILED
    return outcome.value
