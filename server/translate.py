"""Between the public messages and the private ones; no rules, no I/O."""

from google.protobuf.duration_pb2 import Duration

from despacho.job.v1 import job_pb2
from prediction.v1 import prediction_pb2 as pb
from server.ports import ModelView


def to_response(reply: job_pb2.Reply, job: job_pb2.Job, *, total_s: float) -> pb.PredictResponse:
    """Return the caller's view of a reply that has an answer.

    Args:
        reply: what the worker sent.
        job: what it was asked.
        total_s: from the arrival of the request until now, seconds.
    """
    answer = reply.answer
    response = pb.PredictResponse(
        request_id=job.request_id,
        model=job.model,
        model_version=answer.model_version,
        worker=reply.worker,
    )
    # Filled in place: messages made apart would be copied into it, at twice the time.
    for label in answer.labels:
        response.predictions.add(label=label.name, class_id=label.class_id, score=label.score)
    response.scores.extend(answer.scores)
    timing = response.timing
    _set(timing.queue, answer.queue_us)
    _set(timing.decode, answer.decode_us)
    _set(timing.inference, answer.inference_us)
    _set(timing.total, round(total_s * 1_000_000))
    timing.batch_size = answer.batch_size
    timing.attempt = reply.attempt
    return response


def to_model(view: ModelView, *, with_labels: bool) -> pb.Model:
    """Return the caller's view of a model."""
    card = view.card
    return pb.Model(
        name=card.name,
        version=card.version,
        engine=card.engine,
        labels=card.labels if with_labels else (),
        class_count=len(card.labels),
        input_width=card.input_width,
        input_height=card.input_height,
        state=_state(view),
        live_workers=view.ready_workers,
        queue_depth=view.queue_depth,
        estimated_wait=_estimated_wait(view),
        live_versions=view.live_versions,
        max_batch_size=card.max_batch_size,
        queued_operations=view.queued_operations,
    )


def _state(view: ModelView) -> pb.ModelState.ValueType:
    if view.ready_workers:
        return pb.MODEL_STATE_READY
    if view.loading_workers:
        return pb.MODEL_STATE_LOADING
    return pb.MODEL_STATE_NO_WORKER


def _estimated_wait(view: ModelView) -> Duration | None:
    # A rate of zero is a measurement, but no estimate follows from it.
    if not view.drain_per_s:
        return None
    wait = Duration()
    _set(wait, round(view.queue_depth / view.drain_per_s * 1_000_000))
    return wait


def _set(duration: Duration, microseconds: int) -> None:
    """Write a duration, 0 included, which is told apart from one that is not known."""
    # A wait is measured between two machines, so it may come out below nothing.
    seconds, rest_us = divmod(max(0, microseconds), 1_000_000)
    duration.seconds = seconds
    duration.nanos = rest_us * 1000
