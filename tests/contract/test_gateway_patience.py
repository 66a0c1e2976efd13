"""A form of more images than its key may have labelled before the deadline."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from dispatch import errors
from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from server.status import to_status
from tests.gateway import gateway

PREDICT = "/v1/models/default:predict"
PAUSE_S = 0.25


class Slow(prediction_pb2_grpc.PredictionServiceServicer):
    """Labels one image in each while."""

    def __init__(self) -> None:
        self._free_s = 0.0

    def Predict(self, request: pb.PredictRequest, context: Any) -> Any:  # noqa: N802 - as in the proto
        wait_s = self._free_s - time.monotonic()
        if wait_s > 0:
            refusal = errors.RateLimited(
                "enough", subject="key:a/requests_per_s", retry_after_s=wait_s
            )
            status = to_status(refusal)
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, status.message)
        self._free_s = time.monotonic() + PAUSE_S
        return pb.PredictResponse(request_id=request.request_id)


def test_what_was_labelled_is_told_when_the_time_is_over_for_others() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(Slow(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with gateway(f"127.0.0.1:{port}", default_timeout_s=8) as web:
            parts = [(str(number), bytes(100_000)) for number in range(200)]
            answer = web.send_parts(PREDICT, *parts)
    finally:
        server.stop(None).wait()
    assert answer.status == 200, answer.json()
    items = answer.json()
    reasons = [item.get("problem", {}).get("reason") for item in items]
    assert len(items) == 200
    assert reasons.count(None) >= 2
    assert set(reasons) == {None, "RATE_LIMITED"}
