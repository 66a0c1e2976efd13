"""Whoever calls and sends nothing is told so: gRPC by itself would let them wait for ever."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from inference import grpc_predict_v2_pb2
from prediction.v1 import admin_pb2, prediction_pb2
from tests.front_end import LIMIT_S, FrontEnd, front_end


def methods_of_one_request(*files: FileDescriptor) -> list[str]:
    return [
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if not method.client_streaming
    ]


SERVED = methods_of_one_request(
    prediction_pb2.DESCRIPTOR,
    admin_pb2.DESCRIPTOR,
    operations_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
)
OPEN = "inference.GRPCInferenceService"
SERVED += [
    f"/{OPEN}/{method.name}"
    for method in grpc_predict_v2_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    if method.name.startswith(("Server", "ModelReady", "ModelMetadata", "ModelInfer"))
    and not method.client_streaming
]


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


@pytest.mark.parametrize("path", SERVED)
async def test_a_call_that_ends_without_its_request_is_refused(front: FrontEnd, path: str) -> None:
    call: Any = front.channel.stream_stream(path)(iter(()), timeout=LIMIT_S)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(await call.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in status.details)
    assert (info.reason, status.message) == (
        "INVALID_ARGUMENT",
        "the call ended without a request",
    )
