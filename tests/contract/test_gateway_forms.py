"""Several images in one request, over a real connection; the front-end behind it is a fake."""

from collections.abc import Iterator

import pytest

from gateway.sending import SMALL_BYTES
from tests.fake_front_end import FakeFrontEnd
from tests.gateway import Web, gateway

PREDICT = "/v1/models/default:predict"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with FakeFrontEnd() as server, gateway(server.target) as running:
        yield running


def test_several_images_are_answered_in_their_order_and_fail_alone(web: Web) -> None:
    large = b"whale " + bytes(2 * SMALL_BYTES)
    response = web.send_parts(
        f"{PREDICT}?topK=1", ("a.png", b"cat"), ("b.png", b"bad"), ("c.png", large)
    )
    assert response.status == 200
    first, second, third = response.json()
    assert first["filename"] == "a.png"
    assert first["response"]["predictions"][0]["label"] == "cat"
    assert second["problem"]["reason"] == "IMAGE_UNDECODABLE"
    assert second["problem"]["field"] == "image"
    assert third["response"]["predictions"][0]["label"] == "whale"
    request_id = response.headers["X-Request-Id"]
    assert [one["response"]["requestId"] for one in (first, third)] == [
        f"{request_id}-0",
        f"{request_id}-2",
    ]


def test_more_images_than_the_window_are_all_answered(web: Web) -> None:
    names = [f"n{number}" for number in range(40)]
    response = web.send_parts(f"{PREDICT}?topK=1", *((name, name.encode()) for name in names))
    assert [one["response"]["predictions"][0]["label"] for one in response.json()] == names


def test_what_all_images_fail_for_is_said_once(web: Web) -> None:
    response = web.send_parts("/v1/models/nope:predict", ("a.png", b"cat"), ("b.png", b"dog"))
    assert response.json()["reason"] == "MODEL_NOT_FOUND"
    assert response.status == 404


def test_images_on_which_the_model_fails_are_named_each(web: Web) -> None:
    items = web.send_parts(PREDICT, ("a.png", b"crash"), ("b.png", b"crash")).json()
    assert [(item["filename"], item["problem"]["reason"]) for item in items] == [
        ("a.png", "INFERENCE_FAILED"),
        ("b.png", "INFERENCE_FAILED"),
    ]


def form(disposition: bytes) -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\ncat\r\n--x--\r\n"


def test_a_file_name_that_is_no_utf_8_is_told_as_well_as_can_be(web: Web) -> None:
    body = form('name="image"; filename="café.jpg"'.encode("latin-1"))
    response = web.call("POST", PREDICT, body, Content_Type="multipart/form-data; boundary=x")
    assert response.status == 200
    assert [item["filename"] for item in response.json()] == ["café.jpg"]


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("multipart/form-data", b"x", "Content-Type"),
        ("multipart/form-data; boundary=x", b"nonsense", "body"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "image"),
        ("multipart/form-data; boundary=x", form(b'name="other"; filename="a"'), "body"),
        ("multipart/form-data; boundary=x", form(b'name="image"'), "body"),
    ],
)
def test_a_form_that_is_none_is_refused(web: Web, kind: str, body: bytes, field: str) -> None:
    response = web.call("POST", PREDICT, body, Content_Type=kind)
    assert (response.status, response.json()["field"]) == (400, field)
