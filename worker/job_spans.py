"""The spans of a job in a worker: it waited, it was decoded, it was inferred.

Each is made when it is over, and all have the same parent, which came with the job: so
a worker that is killed leaves behind what it had done until then, and nothing without a parent.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dispatch import keys
from dispatch.jobs import Claim
from telemetry.tracing import is_sampled

if TYPE_CHECKING:
    from telemetry.tracing_sdk import Kind, Tracer, Value


def waited(tracer: "Tracer", claim: Claim, seconds: float, *, reason: str = "") -> None:
    """Tell of the wait of a job, which ends now.

    Args:
        tracer: makes the span.
        claim: the job.
        seconds: since it was enqueued, by the clock of Redis.
        reason: why it waited in vain; empty: it is worked on now.
    """
    attributes: dict[str, Value] = {
        "messaging.system": "redis",
        "messaging.operation.name": "claim",
        "messaging.operation.type": "receive",
        "messaging.destination.name": keys.jobs(claim.job.model, claim.priority),
        "messaging.message.id": claim.job.id,
    }
    _tell(tracer, claim, "queue wait", seconds, attributes, kind="consumer", reason=reason)


def decoded(tracer: "Tracer", claim: Claim, seconds: float, *, reason: str = "") -> None:
    """Tell of a decoding, which ends now.

    Args:
        tracer: makes the span.
        claim: the job.
        seconds: how long it took.
        reason: why there are no pixels; empty: there are.
    """
    _tell(tracer, claim, "decode", seconds, {"despacho.bytes": len(claim.image)}, reason=reason)


def inferred(
    tracer: "Tracer", claims: Iterable[Claim], seconds: float, *, size: int, reason: str = ""
) -> None:
    """Tell of an inference, which ends now, in the trace of each job of its batch.

    Args:
        tracer: makes the spans.
        claims: the jobs.
        seconds: how long it took.
        size: how many they are.
        reason: why there are no scores; empty: there are.
    """
    for claim in claims:
        _tell(tracer, claim, "inference", seconds, {"despacho.batch_size": size}, reason=reason)


def _tell(
    tracer: "Tracer",
    claim: Claim,
    name: str,
    seconds: float,
    attributes: "dict[str, Value]",
    *,
    kind: "Kind" = "internal",
    reason: str,
) -> None:
    job = claim.job
    if not is_sampled(job.traceparent):
        return
    ended_ns = time.time_ns()
    span = tracer.begin(
        name,
        kind,
        {
            **attributes,
            "despacho.model": job.model,
            "despacho.request_id": job.request_id,
            "despacho.attempt": claim.attempt,
        },
        parent=job.traceparent,
        at_ns=ended_ns - round(max(0.0, seconds) * 1e9),
    )
    if reason:
        span.fail(reason)
    span.end(ended_ns)
