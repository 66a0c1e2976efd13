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
    return pb.PredictResponse(
        request_id=job.request_id,
        model=job.model,
        model_version=answer.model_version,
        predictions=[
            pb.Prediction(label=label.name, class_id=label.class_id, score=label.score)
            for label in answer.labels
        ],
        scores=answer.scores,
        timing=pb.Timing(
            queue=_duration(answer.queue_us),
            decode=_duration(answer.decode_us),
            inference=_duration(answer.inference_us),
            total=_duration(round(total_s * 1_000_000)),
            batch_size=answer.batch_size,
            attempt=reply.attempt,
        ),
        worker=reply.worker,
    )


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
    return _duration(round(view.queue_depth / view.drain_per_s * 1_000_000))


def _duration(microseconds: int) -> Duration:
    duration = Duration()
    # A wait is measured between two machines, so it may come out below nothing.
    duration.FromMicroseconds(max(0, microseconds))
    return duration
