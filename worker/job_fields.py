"""What each log line about a job has, so that it is found with those of the front-end."""

from collections.abc import Sequence

from dispatch.jobs import Claim
from telemetry.tracing import trace_id_of


def fields_of(claim: Claim) -> dict[str, str | int]:
    """Return the ids of a job, its model, and how often it was delivered."""
    job = claim.job
    return {
        "request_id": job.request_id,
        "trace_id": trace_id_of(job.traceparent),
        "model": job.model,
        "attempt": claim.attempt,
    }


def fields_of_all(claims: Sequence[Claim]) -> dict[str, object]:
    """Return the ids of jobs of one model that share a fate."""
    return {
        "request_ids": [claim.job.request_id for claim in claims],
        "trace_ids": [trace_id_of(claim.job.traceparent) for claim in claims],
        "model": claims[0].job.model if claims else "",
    }
