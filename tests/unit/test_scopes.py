"""Every method has a scope that somebody chose."""

import pytest
from google.longrunning import operations_pb2
from google.protobuf.descriptor import FileDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inference import grpc_predict_v2_pb2
from prediction.v1 import admin_pb2, prediction_pb2
from server.scopes import _METHODS as BY_METHOD
from server.scopes import _SERVICES as BY_SERVICE
from server.scopes import MESSAGES_ARE_REQUESTS, SCOPES, need_of

FILES: list[FileDescriptor] = [
    each.DESCRIPTOR
    for each in (
        *(prediction_pb2, admin_pb2, grpc_predict_v2_pb2),
        *(operations_pb2, health_pb2, reflection_pb2, channelz_pb2),
    )
]
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
}


def test_every_service_has_a_row() -> None:
    services = {method.rpartition("/")[0].strip("/") for method in METHODS}
    assert services == set(BY_SERVICE)


def test_rows_are_of_methods_that_exist() -> None:
    assert {*BY_METHOD, *MESSAGES_ARE_REQUESTS} <= set(METHODS)


def test_only_health_needs_nothing() -> None:
    open_to_all = {name for name in METHODS if need_of(name) == "nothing"}
    probes = {"ServerLive", "ServerReady", "ModelReady"}
    health = {name for name in METHODS if name.startswith("/grpc.health.v1.Health/")}
    assert open_to_all == health | {f"/inference.GRPCInferenceService/{name}" for name in probes}


@pytest.mark.parametrize(
    ("method", "need"),
    [
        ("/prediction.v1.PredictionService/Predict", "predict"),
        ("/prediction.v1.PredictionService/PredictUpload", "predict"),
        ("/prediction.v1.PredictionService/SubmitPrediction", "operations"),
        ("/google.longrunning.Operations/DeleteOperation", "operations"),
        ("/prediction.v1.AdminService/PurgeDeadLetters", "admin"),
        ("/prediction.v1.AdminService/ListModels", "admin"),
        ("/inference.GRPCInferenceService/ModelInfer", "predict"),
        ("/somebody.Elses/Method", "admin"),
        ("nonsense", "admin"),
    ],
)
def test_a_method_needs(method: str, need: str) -> None:
    assert need_of(method) == need


def test_streams_of_requests_are_streams() -> None:
    for name in MESSAGES_ARE_REQUESTS:
        assert METHODS[name].client_streaming
        assert METHODS[name].server_streaming


def test_scopes_are_all_in_use() -> None:
    assert set(SCOPES) <= {need_of(method) for method in METHODS}
