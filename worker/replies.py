"""How a job ends: the reply for its caller and the outcome for the books."""

from collections.abc import Sequence

import numpy as np

from despacho.job.v1.job_pb2 import Answer, Failure, Label, Reply
from dispatch.errors import DespachoError, ExpiredInQueue, InferenceFailed
from dispatch.jobs import Claim, Outcome
from dispatch.retiring import Ended
from worker.batching import Prepared
from worker.engine import Float32Array


def answered(
    worker: str,
    item: Prepared,
    scores: Float32Array,
    labels: Sequence[str],
    *,
    model_version: str,
    inference_us: int,
    batch_size: int,
) -> Ended:
    """Return the reply with the best labels.

    Args:
        worker: name of this worker.
        item: the image.
        scores: probabilities, shape (classes,).
        labels: names of the classes.
        model_version: which model said so.
        inference_us: how long the batch took, microseconds.
        batch_size: images in the batch.
    """
    job = item.claim.job
    # Stable, so that equal scores come in the order of the classes.
    best = np.argsort(-scores, kind="stable")[: job.top_k]
    answer = Answer(
        model_version=model_version,
        labels=[Label(name=labels[i], class_id=int(i), score=float(scores[i])) for i in best],
        scores=scores.tolist() if job.include_scores else (),
        queue_us=item.queue_us,
        decode_us=item.decode_us,
        inference_us=inference_us,
        batch_size=batch_size,
    )
    reply = _reply(worker, item.claim)
    reply.answer.CopyFrom(answer)
    return item.claim, reply, Outcome.COMPLETED


def failed(worker: str, claim: Claim, error: DespachoError) -> Ended:
    """Return the reply of a job that was tried, or could not be, and has no answer."""
    return _failure(worker, claim, error, Outcome.FAILED)


def not_inferred(worker: str, claim: Claim) -> Ended:
    """Return the reply of a job on which the model, or we, raised."""
    error = InferenceFailed("the model could not process this image")
    return _failure(worker, claim, error, Outcome.FAILED)


def expired(worker: str, claim: Claim) -> Ended:
    """Return the reply of a job that came too late to be worth running."""
    error = ExpiredInQueue("no worker was free before the deadline")
    return _failure(worker, claim, error, Outcome.EXPIRED)


def _failure(worker: str, claim: Claim, error: DespachoError, outcome: Outcome) -> Ended:
    reply = _reply(worker, claim)
    reply.failure.CopyFrom(Failure(reason=error.reason, message=str(error)))
    return claim, reply, outcome


def _reply(worker: str, claim: Claim) -> Reply:
    return Reply(job_id=claim.job.id, worker=worker, attempt=claim.attempt)
