"""The limit of any gRPC service in Python: grpc.aio, uvloop and the same stubs; nothing else.

    python -m tests.bench.echo ADDRESS

It reads each request as the front-end does, and returns at once an answer as large as
the system's, with the right class, so that the same check is passed by both.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration

from prediction.v1 import prediction_pb2 as pb
from prediction.v1.prediction_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from tests.bench.payloads import MODEL, answer_to

OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4096),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
]
WORKER = "a-host-12345-abcdef"
REQUEST_ID = "0123456789abcdef" * 2


class Echo(PredictionServiceServicer):
    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        del context
        return answer(answer_to(request.image), request.request_id or REQUEST_ID)

    async def PredictStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.PredictStreamRequest], context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        del context
        async for message in request_iterator:
            request_id = message.request.request_id
            yield pb.PredictStreamResponse(
                request_id=request_id,
                response=answer(answer_to(message.request.image), request_id),
            )


def answer(class_id: int, request_id: str) -> pb.PredictResponse:
    return pb.PredictResponse(
        request_id=request_id,
        model=MODEL,
        model_version="1",
        predictions=[pb.Prediction(label=f"class {class_id}", class_id=class_id, score=1.0)],
        timing=pb.Timing(
            queue=Duration(nanos=1_234_000),
            decode=Duration(nanos=23_000),
            inference=Duration(nanos=45_000),
            total=Duration(nanos=2_345_000),
            batch_size=8,
            attempt=1,
        ),
        worker=WORKER,
    )


async def serve(address: str, servicer: PredictionServiceServicer) -> None:
    server = grpc.aio.server(options=OPTIONS)
    add_PredictionServiceServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    sys.stderr.write("serving\n")
    sys.stderr.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    # What it does not have is answered with UNIMPLEMENTED.
    uvloop.run(serve(sys.argv[1], Echo()))  # type: ignore[abstract]
