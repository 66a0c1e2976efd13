"""A caller in a process of its own, so that what calls leave in it is not taken for the server's.

python -m tests.rude_caller ADDRESS [API_KEY]

Reads the name of a kind of call from each line, makes it, and writes the code with which it ended.
A call that `leaves` is cancelled at the next line.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inference import grpc_predict_v2_pb2 as oip
from prediction.v1 import admin_pb2
from prediction.v1 import prediction_pb2 as pb

MIB: Final = 1 << 20
IMAGE: Final = b"x" * MIB
HELD: Final = b"hold" + IMAGE
BAD: Final = b"bad" + IMAGE
LONG: Final = "x" * MIB

SERVICE: Final = "/prediction.v1.PredictionService"
ADMIN: Final = "/prediction.v1.AdminService"
OPEN: Final = "/inference.GRPCInferenceService"
OPERATIONS: Final = "/google.longrunning.Operations"
HEALTH: Final = "/grpc.health.v1.Health"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

SMALL: Final = "small"
"""The kind that has no large message."""

PATIENCE_S: Final = 30.0
SHORT_S: Final = 0.5

Make = Callable[[], Sequence[Message | bytes]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call, with a large message."""

    path: str
    messages: Make
    code: str = "OK"
    """How it ends."""

    leaves: bool = False
    """Whether the caller goes away while the server waits for an answer."""

    is_open: bool = False
    """Whether the caller says nothing more, and does not say so: it waits for the deadline."""

    most_responses: int = 100
    """It goes away after so many."""

    timeout_s: float = PATIENCE_S
    metadata: tuple[tuple[str, str], ...] = ()


def infer(*images: bytes, datatype: str = "BYTES", name: str = "image") -> oip.ModelInferRequest:
    """Return a request of the Open Inference Protocol."""
    request = oip.ModelInferRequest()
    tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(images)])
    tensor.contents.bytes_contents.extend(images)
    return request


def stream(*images: bytes) -> Sequence[Message]:
    """Return the requests of a stream."""
    return [pb.PredictStreamRequest(request=pb.PredictRequest(image=each)) for each in images]


def batch(*images: bytes) -> Sequence[Message]:
    """Return a request with many images."""
    return [pb.PredictBatchRequest(images=[pb.BatchImage(image=each) for each in images])]


def upload(*parts: bytes) -> Sequence[Message]:
    """Return the messages of an upload."""
    return [
        pb.PredictUploadRequest(options=pb.UploadOptions()),
        *(pb.PredictUploadRequest(chunk=each) for each in parts),
    ]


NO, GONE, LATE, BAD_ARGUMENT = "NOT_FOUND", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT"

KINDS: Final = {
    "good": Kind(f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=IMAGE)]),
    "unparsable": Kind(f"{SERVICE}/Predict", lambda: [b"\xff" * MIB], BAD_ARGUMENT),
    "refused": Kind(
        f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=IMAGE, top_k=-1)], BAD_ARGUMENT
    ),
    "refused by a worker": Kind(
        f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=BAD)], BAD_ARGUMENT
    ),
    "too large": Kind(
        f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=20 * IMAGE)], "RESOURCE_EXHAUSTED"
    ),
    "two messages": Kind(f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=IMAGE)] * 2),
    "left": Kind(
        f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=HELD)], GONE, leaves=True
    ),
    "late": Kind(
        f"{SERVICE}/Predict", lambda: [pb.PredictRequest(image=HELD)], LATE, timeout_s=SHORT_S
    ),
    "batch": Kind(f"{SERVICE}/PredictBatch", lambda: batch(IMAGE, b"", BAD)),
    "batch, left": Kind(
        f"{SERVICE}/PredictBatch", lambda: batch(IMAGE, b"", HELD), GONE, leaves=True
    ),
    "batch, hung up": Kind(
        f"{SERVICE}/PredictBatch", lambda: batch(IMAGE, HELD), GONE, most_responses=1
    ),
    "upload": Kind(f"{SERVICE}/PredictUpload", lambda: upload(IMAGE, IMAGE)),
    "upload, refused": Kind(
        f"{SERVICE}/PredictUpload", lambda: upload(*20 * [IMAGE]), BAD_ARGUMENT
    ),
    "upload, late": Kind(
        f"{SERVICE}/PredictUpload", lambda: upload(IMAGE), LATE, is_open=True, timeout_s=SHORT_S
    ),
    "upload, left": Kind(f"{SERVICE}/PredictUpload", lambda: upload(HELD), GONE, leaves=True),
    "stream": Kind(f"{SERVICE}/PredictStream", lambda: stream(IMAGE, BAD, b"", IMAGE)),
    "stream, unparsable": Kind(
        f"{SERVICE}/PredictStream", lambda: [*stream(IMAGE), b"\xff" * MIB], BAD_ARGUMENT
    ),
    "stream, left": Kind(
        f"{SERVICE}/PredictStream", lambda: stream(HELD, BAD), GONE, leaves=True, is_open=True
    ),
    "stream, left with more": Kind(
        f"{SERVICE}/PredictStream", lambda: stream(HELD, HELD), GONE, leaves=True, is_open=True
    ),
    "stream, hung up": Kind(
        f"{SERVICE}/PredictStream",
        lambda: stream(IMAGE, HELD),
        GONE,
        is_open=True,
        most_responses=1,
    ),
    "stream, late": Kind(
        f"{SERVICE}/PredictStream", lambda: stream(BAD), LATE, is_open=True, timeout_s=SHORT_S
    ),
    "submit": Kind(
        f"{SERVICE}/SubmitPrediction", lambda: [pb.SubmitPredictionRequest(image=IMAGE)]
    ),
    "submit, refused": Kind(
        f"{SERVICE}/SubmitPrediction",
        lambda: [pb.SubmitPredictionRequest(image=IMAGE, model="none")],
        NO,
    ),
    "infer": Kind(f"{OPEN}/ModelInfer", lambda: [infer(IMAGE, IMAGE)]),
    "infer, refused": Kind(
        f"{OPEN}/ModelInfer", lambda: [infer(IMAGE, datatype=LONG, name="image")], BAD_ARGUMENT
    ),
    "infer, one is bad": Kind(
        f"{OPEN}/ModelInfer", lambda: [infer(HELD, IMAGE, BAD)], BAD_ARGUMENT
    ),
    "infer, left": Kind(f"{OPEN}/ModelInfer", lambda: [infer(IMAGE, HELD)], GONE, leaves=True),
    "infer stream": Kind(f"{OPEN}/ModelStreamInfer", lambda: [infer(BAD), infer(IMAGE, BAD)]),
    "infer stream, ended": Kind(
        f"{OPEN}/ModelStreamInfer",
        lambda: [infer(HELD, IMAGE), infer(IMAGE, BAD)],
        GONE,
        leaves=True,
        metadata=(("triton_grpc_error", "true"),),
    ),
    "infer stream, left with more": Kind(
        f"{OPEN}/ModelStreamInfer",
        lambda: [infer(HELD), infer(HELD)],
        GONE,
        leaves=True,
        is_open=True,
    ),
    "long name": Kind(f"{SERVICE}/GetModel", lambda: [pb.GetModelRequest(name=LONG)], NO),
    "operation": Kind(
        f"{OPERATIONS}/GetOperation",
        lambda: [operations_pb2.GetOperationRequest(name=LONG)],
        BAD_ARGUMENT,
    ),
    "statistics": Kind(
        f"{ADMIN}/WatchStats",
        lambda: [admin_pb2.WatchStatsRequest(model=LONG)],
        GONE,
        most_responses=1,
    ),
    "health": Kind(
        f"{HEALTH}/Check", lambda: [health_pb2.HealthCheckRequest(service=LONG)], NO
    ),
    "health, watched": Kind(
        f"{HEALTH}/Watch",
        lambda: [health_pb2.HealthCheckRequest(service=LONG)],
        GONE,
        most_responses=1,
    ),
    "reflection": Kind(
        REFLECTION,
        lambda: [reflection_pb2.ServerReflectionRequest(file_containing_symbol=LONG)],
    ),
    SMALL: Kind(f"{HEALTH}/List", lambda: [b""]),
    "no method": Kind(f"{SERVICE}/None", lambda: [IMAGE], "UNIMPLEMENTED"),
}  # fmt: skip


def make(channel: grpc.Channel, kind: Kind, api_key: str) -> str:
    """Make a call; return the name of its code."""

    def sent() -> Iterator[bytes]:
        for message in kind.messages():
            yield message if isinstance(message, bytes) else message.SerializeToString()
        if kind.is_open:
            time.sleep(PATIENCE_S)

    metadata = (*kind.metadata, *((("x-api-key", api_key),) if api_key else ()))
    method: Any = channel.stream_stream(kind.path, None, None)
    call = method(sent(), timeout=kind.timeout_s, metadata=metadata)
    if kind.leaves:
        sys.stdin.readline()
        call.cancel()
    try:
        for number, _ in enumerate(call, start=1):
            if number == kind.most_responses:
                call.cancel()
    except grpc.RpcError:
        pass
    return str(call.code().name)


def main() -> None:
    """Make calls until the input ends."""
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    address, api_key = (*sys.argv[1:], "")[:2]
    with grpc.insecure_channel(address, options=options) as channel:
        while line := sys.stdin.readline():
            sys.stdout.write(make(channel, KINDS[line.strip()], api_key) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
