"""Several images that are submitted in one request."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]

from gateway.body import MAX_IMAGES
from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from tests.gateway import LIMIT_S, gateway


class Disk(prediction_pb2_grpc.PredictionServiceServicer):
    """Has no image before it has all of them, as if they waited for the disk together."""

    def __init__(self) -> None:
        self._all_are_here = threading.Barrier(MAX_IMAGES, timeout=LIMIT_S)

    def SubmitPrediction(  # noqa: N802 - as in the proto
        self, request: pb.SubmitPredictionRequest, context: Any
    ) -> Any:
        del context
        self._all_are_here.wait()
        return operations_pb2.Operation(name=request.image.decode())


def test_all_images_of_a_request_wait_for_the_disk_together() -> None:
    server = grpc.server(ThreadPoolExecutor(MAX_IMAGES))
    servicer = Disk()  # type: ignore[abstract] # nothing else is called
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    names = [f"image-{number}" for number in range(MAX_IMAGES)]
    try:
        with gateway(f"127.0.0.1:{port}") as web:
            parts = [(name, name.encode()) for name in names]
            items = web.send_parts("/v1/models/default:submit", *parts).json()
    finally:
        server.stop(None).wait()
    assert [item["operation"]["name"] for item in items] == names
