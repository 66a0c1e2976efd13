"""From the replies of workers to a response of the Open Inference Protocol; no I/O."""

from collections.abc import Sequence

from despacho.job.v1 import job_pb2
from dispatch.errors import NoWorker
from inference import grpc_predict_v2_pb2 as pb
from server.inference_request import LABELS, Output, Wanted
from server.tensors import BytesTensor, Fp32Tensor, Tensor, add_outputs


def to_response(
    replies: Sequence[job_pb2.Reply], wanted: Wanted, *, request: pb.ModelInferRequest, model: str
) -> pb.ModelInferResponse:
    """Return the answer to `request`.

    Args:
        replies: one for each image, in the order of the images.
        wanted: what `request` asks for.
        request: whose id and version the answer has.
        model: name of the model.

    Raises:
        NoWorker: the model is being replaced by another version, and that one
            answered, or both did and one tensor cannot hold that.
    """
    answers = [reply.answer for reply in replies]
    versions = sorted({answer.model_version for answer in answers})
    if request.model_version and versions != [request.model_version]:
        raise _being_replaced(model, versions)
    response = pb.ModelInferResponse(
        model_name=model, model_version=",".join(versions), id=request.id
    )
    tensors = [_tensor(output, answers) for output in wanted.outputs]
    if not all(tensors):
        raise _being_replaced(model, versions)
    add_outputs(response, (each for each in tensors if each), is_raw=wanted.is_raw)
    return response


def _tensor(output: Output, answers: Sequence[job_pb2.Answer]) -> Tensor | None:
    """Return one output; None: not every answer has as many numbers."""
    if output.class_count:
        return _classification(output, answers)
    if output.name == LABELS:
        best = [answer.labels[0].name.encode() for answer in answers]
        return BytesTensor(output.name, (len(answers), 1), best)
    widths = {len(answer.scores) for answer in answers}
    if len(widths) > 1:
        return None
    scores = [score for answer in answers for score in answer.scores]
    return Fp32Tensor(output.name, (len(answers), *widths), scores)


def _classification(output: Output, answers: Sequence[job_pb2.Answer]) -> Tensor | None:
    """Return the best classes of each image as `score:index:label`."""
    rows = [
        [f"{label.score:f}:{label.class_id}:{label.name}".encode() for label in best]
        for best in (answer.labels[: output.class_count] for answer in answers)
    ]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        return None
    return BytesTensor(output.name, (len(rows), *widths), [text for row in rows for text in row])


def _being_replaced(model: str, versions: Sequence[str]) -> NoWorker:
    return NoWorker(
        f"model {model!r} is being replaced; versions that answered: {', '.join(versions)}"
    )
