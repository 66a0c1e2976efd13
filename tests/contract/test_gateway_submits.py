"""Several images that are submitted in one request."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2  # type: ignore[import-untyped, unused-ignore]

from gateway.body import MAX_IMAGES, PIECE_BYTES
from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from tests.gateway import LIMIT_S, Web, gateway

SUBMIT = "/v1/models/default:submit"


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


class Accepting(prediction_pb2_grpc.PredictionServiceServicer):
    """Accepts every image, under its first word."""

    def SubmitPrediction(  # noqa: N802 - as in the proto
        self, request: pb.SubmitPredictionRequest, context: Any
    ) -> Any:
        del context
        return operations_pb2.Operation(name=request.image.split()[0].decode())


@contextmanager
def before(
    servicer: prediction_pb2_grpc.PredictionServiceServicer, **settings: object
) -> Iterator[Web]:
    server = grpc.server(ThreadPoolExecutor(MAX_IMAGES))
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with gateway(f"127.0.0.1:{port}", **settings) as web:
            yield web
    finally:
        server.stop(None).wait()


def test_all_images_of_a_request_wait_for_the_disk_together() -> None:
    names = [f"image-{number}" for number in range(MAX_IMAGES)]
    with before(Disk()) as web:  # type: ignore[abstract] # nothing else is called
        items = web.send_parts(SUBMIT, *((name, name.encode()) for name in names)).json()
    assert [item["operation"]["name"] for item in items] == names


def part(head: bytes, data: bytes) -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n"


FIRST = part(b'name="image"; filename="a"', b"cat") + part(b'name="image"; filename="b"', b"dog")
NOTE = part(b'name="note"', b"hello")
MANY = part(b'name="image"; filename="c"', b"owl") * (MAX_IMAGES - 1)


@pytest.mark.parametrize(
    ("rest", "accepted", "reason", "filename"),
    [
        (NOTE, {"a": "cat", "b": "dog"}, "INVALID_ARGUMENT", ""),
        (MANY, {"a": "cat", "b": "dog", "c": "owl"}, "INVALID_ARGUMENT", ""),
        # Where the second image ends is not known before the next part begins.
        (bytes(2 * PIECE_BYTES), {"a": "cat"}, "BODY_TOO_LARGE", "b"),
        (b"--x\r\nnonsense", {"a": "cat", "b": "dog"}, "INVALID_ARGUMENT", ""),
    ],
)
def test_what_was_accepted_before_a_body_went_wrong_is_named(
    rest: bytes, accepted: dict[str, str], reason: str, filename: str
) -> None:
    kind = "multipart/form-data; boundary=x"
    with before(Accepting(), max_body_bytes=PIECE_BYTES) as web:  # type: ignore[abstract]
        # In chunks, as its size would be refused before.
        response = web.call("POST", SUBMIT, iter([FIRST, rest]), Content_Type=kind)
    assert response.status == 200
    *items, last = response.json()
    assert {item["filename"]: item["operation"]["name"] for item in items} == accepted
    assert (last["filename"], last["problem"]["reason"]) == (filename, reason)


def test_a_body_that_goes_wrong_before_its_first_image_has_ended_is_a_problem() -> None:
    kind = "multipart/form-data; boundary=x"
    with before(Accepting()) as web:  # type: ignore[abstract]
        response = web.call("POST", SUBMIT, NOTE + b"--x--\r\n", Content_Type=kind)
    assert response.status == 400
