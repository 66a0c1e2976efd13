"""Bad images, in each way in which an image can be sent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration
from hypothesis import strategies as st

from inference import grpc_predict_v2_pb2 as oip
from prediction.v1 import prediction_pb2 as pb
from tests.fuzz.attacks import PATIENCE_S, Arena, attack
from tests.fuzz.bombs import BOMBS
from tests.fuzz.caller import Manners, call, status_answer
from tests.fuzz.mutations import Picture, bombs, pictures
from tests.fuzz.verdict import OK, Answer, Wrong
from tests.worker_process import MODEL

SERVICE: Final = "/prediction.v1.PredictionService"
OPEN: Final = "/inference.GRPCInferenceService"
OPERATIONS: Final = "/google.longrunning.Operations"

BOMB_S: Final = 60.0
"""How long the answer to a bomb may take: up to 100 million pixels are decoded."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Some images, and the way they go."""

    way: str
    pictures: tuple[Picture, ...]
    chunk_bytes: int = 1 << 20


def deliveries(arena: Arena) -> st.SearchStrategy[Delivery]:
    """Return deliveries of damaged images."""
    del arena
    return st.builds(
        Delivery,
        st.sampled_from(sorted(WAYS)),
        st.lists(pictures(), min_size=1, max_size=6).map(tuple),
        st.sampled_from((1, 7, 100, 65_536)),
    )


def bomb_deliveries(arena: Arena) -> st.SearchStrategy[Delivery]:
    """Return deliveries of one bomb each; a batch of many would be too large a message."""
    del arena
    return st.builds(
        Delivery, st.sampled_from(sorted(WAYS)), st.tuples(bombs()), st.sampled_from((65_536,))
    )


@attack("images", "damaged images, other formats and noise, in every way of sending", deliveries)
def images(arena: Arena, delivery: Delivery) -> None:
    """Send damaged images."""
    WAYS[delivery.way](arena, delivery, PATIENCE_S)


@attack("bombs", f"{len(BOMBS)} decompression bombs, in every way of sending", bomb_deliveries)
def bombs_sent(arena: Arena, delivery: Delivery) -> None:
    """Send bombs."""
    WAYS[delivery.way](arena, delivery, BOMB_S)


def one(arena: Arena, path: str, messages: Iterable[Any], within_s: float) -> list[bytes]:
    """Call, accept the answer, and return the responses."""
    sent = (message.SerializeToString() for message in messages)
    answer, responses = call(arena.channel, path, sent, Manners(timeout_s=within_s + 5))
    arena.accept(answer, within_s=within_s)
    if answer.name == OK and not responses:
        raise Wrong(f"{path} ended well and said nothing")
    return responses


def predict(arena: Arena, delivery: Delivery, within_s: float) -> None:
    """Send each on its own."""
    for picture in delivery.pictures:
        one(arena, f"{SERVICE}/Predict", [pb.PredictRequest(image=picture.data)], within_s)


def predict_batch(arena: Arena, delivery: Delivery, within_s: float) -> None:
    """Send all in one message."""
    images_ = [pb.BatchImage(image=picture.data) for picture in delivery.pictures]
    request = pb.PredictBatchRequest(images=images_)
    responses = one(arena, f"{SERVICE}/PredictBatch", [request], within_s)
    outcomes = [pb.PredictBatchResponse.FromString(each) for each in responses]
    accept_all(arena, outcomes, len(images_))


def predict_upload(arena: Arena, delivery: Delivery, within_s: float) -> None:
    """Send each in chunks."""
    for picture in delivery.pictures:
        size = max(delivery.chunk_bytes, len(picture.data) // 200)
        one(arena, f"{SERVICE}/PredictUpload", in_chunks(picture.data, size), within_s)


def in_chunks(data: bytes, size: int) -> Iterator[pb.PredictUploadRequest]:
    """Yield the messages of one upload."""
    yield pb.PredictUploadRequest(options=pb.UploadOptions())
    for start in range(0, len(data), size):
        yield pb.PredictUploadRequest(chunk=data[start : start + size])


def predict_stream(arena: Arena, delivery: Delivery, within_s: float) -> None:
    """Send all in one stream."""
    requests = [
        pb.PredictStreamRequest(request=pb.PredictRequest(image=picture.data))
        for picture in delivery.pictures
    ]
    responses = one(arena, f"{SERVICE}/PredictStream", requests, within_s)
    outcomes = [pb.PredictStreamResponse.FromString(each) for each in responses]
    accept_all(arena, outcomes, len(requests))


def accept_all(arena: Arena, outcomes: Sequence[Any], count: int) -> None:
    """Accept what each image of a call got."""
    if len(outcomes) != count:
        raise Wrong(f"{len(outcomes)} answers for {count} images")
    for outcome in outcomes:
        if outcome.HasField("failure"):
            arena.accept(status_answer(outcome.failure))
        else:
            arena.accept(Answer(OK))


def submit(arena: Arena, delivery: Delivery, within_s: float) -> None:
    """Submit each, and wait for its end."""
    for picture in delivery.pictures:
        request = pb.SubmitPredictionRequest(image=picture.data)
        responses = one(arena, f"{SERVICE}/SubmitPrediction", [request], within_s)
        for response in responses:
            name = operations_pb2.Operation.FromString(response).name
            wait = operations_pb2.WaitOperationRequest(
                name=name, timeout=Duration(seconds=round(within_s))
            )
            ended = one(arena, f"{OPERATIONS}/WaitOperation", [wait], within_s + 5)
            operation = operations_pb2.Operation.FromString(ended[0]) if ended else None
            if operation is None or not operation.done:
                raise Wrong(f"the operation has not ended after {within_s:.0f} s")
            if operation.HasField("error"):
                arena.accept(status_answer(operation.error))


def infer(*, raw: bool, path: str) -> Callable[[Arena, Delivery, float], None]:
    """Return a way through the Open Inference Protocol."""

    def send(arena: Arena, delivery: Delivery, within_s: float) -> None:
        images_ = [picture.data for picture in delivery.pictures]
        one(arena, f"{OPEN}/{path}", [infer_request(images_, raw=raw)], within_s)

    return send


def infer_request(images_: Sequence[bytes], *, raw: bool) -> oip.ModelInferRequest:
    """Return a request of the Open Inference Protocol."""
    request = oip.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images_)])
    if raw:
        parts = [len(image).to_bytes(4, "little") + image for image in images_]
        request.raw_input_contents.append(b"".join(parts))
    else:
        tensor.contents.bytes_contents.extend(images_)
    return request


WAYS: Final[dict[str, Callable[[Arena, Delivery, float], None]]] = {
    "Predict": predict,
    "PredictBatch": predict_batch,
    "PredictUpload": predict_upload,
    "PredictStream": predict_stream,
    "SubmitPrediction": submit,
    "ModelInfer-raw": infer(raw=True, path="ModelInfer"),
    "ModelInfer-typed": infer(raw=False, path="ModelInfer"),
    "ModelStreamInfer": infer(raw=True, path="ModelStreamInfer"),
}
