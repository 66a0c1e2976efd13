"""How long a request waits for the end of an operation."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]
from google.longrunning.operations_pb2_grpc import (  # type: ignore[import-untyped, unused-ignore]
    OperationsServicer,
    add_OperationsServicer_to_server,
)

from gateway.parameters import WAIT_SLACK_S
from tests.gateway import gateway


class Patient(OperationsServicer):  # type: ignore[misc, unused-ignore] # published without types
    """Tells at once how long it was to wait, and how long its caller would."""

    def WaitOperation(  # noqa: N802 - as in the proto
        self, request: operations_pb2.WaitOperationRequest, context: Any
    ) -> Any:
        self.wait_s = request.timeout.ToMilliseconds() / 1000
        self.deadline_s = context.time_remaining()
        return operations_pb2.Operation(name=request.name)


@pytest.mark.parametrize(
    ("wait", "headers", "wait_s"),
    [(20, {}, 20), (20, {"X_Request_Timeout": "10"}, 10), (10, {"X_Request_Timeout": "20"}, 10)],
)
def test_the_front_end_has_time_to_answer_after_its_wait(
    wait: int, headers: dict[str, str], wait_s: float
) -> None:
    server, patient = grpc.server(ThreadPoolExecutor(1)), Patient()
    add_OperationsServicer_to_server(patient, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with gateway(f"127.0.0.1:{port}", default_timeout_s=10) as web:
            answer = web.call("GET", f"/v1/operations/1?wait={wait}", **headers)
    finally:
        server.stop(None).wait()
    assert answer.status == 200
    # What has passed until it was asked is no longer there to wait.
    assert wait_s - WAIT_SLACK_S / 2 < patient.wait_s <= wait_s
    assert patient.deadline_s > patient.wait_s + WAIT_SLACK_S / 2
