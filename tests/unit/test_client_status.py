"""From a status to an error."""

import pickle
import tomllib
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import client
from client.errors import DespachoError, InternalError, InvalidImage, Overloaded, Unavailable
from client.status import CLASS_OF_CODE, from_rpc_error, from_status
from tests.fake_front_end import FULL


class Ended(grpc.RpcError):
    """A failed call."""

    def __init__(
        self, code: grpc.StatusCode, details: str = "", trailers: tuple[object, ...] = ()
    ) -> None:
        self._code, self._details, self._trailers = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[object, ...]:  # type: ignore[override]
        return self._trailers


def test_every_code_has_a_class() -> None:
    assert set(CLASS_OF_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_every_error_is_public() -> None:
    named = {getattr(client, name) for name in client.__all__}
    assert set(CLASS_OF_CODE.values()) <= named


def test_the_version_of_the_project_is_that_of_the_client() -> None:
    pyproject = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "client.__version__"}


def test_an_unknown_name_is_not_public() -> None:
    with pytest.raises(AttributeError):
        _ = client.nothing


def test_mangled_details_leave_code_and_message() -> None:
    trailers = (("grpc-status-details-bin", b"\xff\xff"),)
    error = from_rpc_error(Ended(grpc.StatusCode.INTERNAL, "oops", trailers))
    assert (type(error), error.message, error.reason) == (InternalError, "oops", "")


@pytest.mark.parametrize(("trailer", "retry_after_s"), [("1500", 1.5), ("-1", None), ("x", None)])
def test_pushback_is_a_hint_too(trailer: str, retry_after_s: float | None) -> None:
    trailers = (("grpc-retry-pushback-ms", trailer),)
    error = from_rpc_error(Ended(grpc.StatusCode.UNAVAILABLE, "", trailers))
    assert error.retry_after_s == retry_after_s


def test_a_reason_of_another_domain_is_not_ours() -> None:
    status = status_pb2.Status(code=8, message="m")
    info = error_details_pb2.ErrorInfo(reason="IMAGE_TOO_LARGE", domain="proxy.example")
    status.details.add().Pack(info)
    error = from_status(status)
    assert (type(error), error.reason) == (Overloaded, "")


def test_an_unknown_reason_falls_back_to_its_code() -> None:
    status = status_pb2.Status(code=14, message="m")
    info = error_details_pb2.ErrorInfo(reason="NEW_REASON", domain="despacho")
    status.details.add().Pack(info)
    error = from_status(status)
    assert (type(error), error.reason) == (Unavailable, "NEW_REASON")


def test_an_unknown_code_is_internal() -> None:
    assert type(from_status(status_pb2.Status(code=99))) is InternalError


def test_a_message_over_the_servers_limit_is_the_images_fault() -> None:
    text = "SERVER: Received message larger than max (9 vs. 8)"
    error = from_rpc_error(Ended(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
    assert isinstance(error, InvalidImage)


def test_the_servers_request_id_wins() -> None:
    status = status_pb2.Status()
    status.CopyFrom(FULL.status)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id="theirs"))
    assert from_status(status, request_id="ours").request_id == "theirs"
    assert from_status(FULL.status, request_id="ours").request_id == "ours"


def test_errors_survive_pickling() -> None:
    error = from_status(FULL.status, request_id="r")
    copy: DespachoError = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy), copy.reason) == (Overloaded, "the queue is full", "QUEUE_FULL")
    assert copy.retry_after_s == 2.5
