"""What the gateway keeps of images, and for whom."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from gateway.body import PIECE_BYTES
from tests.fake_front_end import LIMIT_S, FakeFrontEnd
from tests.fake_operations import FakeOperations
from tests.gateway import Web, gateway
from tests.keyed_front_end import GOOD, KeyedFrontEnd

PREDICT = "/v1/models/default:predict"
IMAGE_BYTES = 200_000
HELD_BYTES = 300_000
HALF_BYTES = 3 * PIECE_BYTES
"""What the gateway keeps of an image that stops coming: whole pieces, and nearly all of it."""
PAUSE_S = 0.02


@contextmanager
def small(server: FakeFrontEnd) -> Iterator[Web]:
    """Run a gateway that has room for one image and a half."""
    with gateway(server.target, max_image_bytes=IMAGE_BYTES, max_held_bytes=HELD_BYTES) as web:
        yield web


@contextmanager
def caller(
    web: Web, path: str, sent: bytes, *, announced_bytes: int, headers: str = ""
) -> Iterator[socket.socket]:
    """Be one who sends this much of a body that is said to have that much."""
    host, port = web.address.rsplit(":", 1)
    headers = f"Host: localhost\r\nContent-Length: {announced_bytes}\r\n{headers}"
    head = f"POST {path} HTTP/1.1\r\n{headers}\r\n"
    with socket.create_connection((host, int(port)), LIMIT_S) as connection:
        connection.sendall(head.encode() + sent)
        yield connection


def submit() -> str:
    """Return where to submit something that was not submitted before."""
    return f"/v1/models/default:submit?requestId={uuid4()}"


def wait_until_held(web: Web, size_bytes: int) -> None:
    """Wait until so much of images is there, and no more."""
    ends_s = time.monotonic() + LIMIT_S
    while web.held.now != size_bytes:
        assert time.monotonic() < ends_s, web.held.now
        time.sleep(PAUSE_S)


def assert_is_full(response: Any) -> None:
    assert response.status == 503
    assert response.json()["reason"] == "GATEWAY_FULL"
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", [submit, lambda: PREDICT], ids=["submit", "predict"])
def test_who_finds_no_room_is_told_until_others_leave(path: Callable[[], str]) -> None:
    image = b"cat " + bytes(IMAGE_BYTES - 4)
    with FakeOperations() as server, small(server) as web:
        with caller(web, submit(), bytes(HALF_BYTES), announced_bytes=IMAGE_BYTES):
            wait_until_held(web, HALF_BYTES)
            assert_is_full(web.call("POST", path(), image))
            # There is still room for a small one.
            assert web.call("POST", path(), b"cat").status in {200, 202}
        wait_until_held(web, 0)
        assert web.call("POST", path(), image).status in {200, 202}


def test_an_image_in_the_hands_of_the_front_end_is_counted() -> None:
    slow = b"slow" + bytes(IMAGE_BYTES - 4)
    with FakeOperations() as server, small(server) as web:
        with caller(web, PREDICT, slow, announced_bytes=IMAGE_BYTES):
            assert server.slow_arrived.wait(LIMIT_S)
            assert_is_full(web.call("POST", submit(), bytes(IMAGE_BYTES)))
            assert web.held.now == IMAGE_BYTES
        wait_until_held(web, 0)


def test_of_several_images_those_without_room_fail_alone() -> None:
    with (
        FakeOperations() as server,
        small(server) as web,
        caller(web, submit(), bytes(HALF_BYTES), announced_bytes=IMAGE_BYTES),
    ):
        wait_until_held(web, HALF_BYTES)
        parts = ("a", b"cat"), ("b", bytes(IMAGE_BYTES)), ("c", b"dog")
        first, second, third = web.send_parts(f"{PREDICT}?topK=1", *parts).json()
        assert first["response"]["predictions"][0]["label"] == "cat"
        assert second["problem"]["reason"] == "GATEWAY_FULL"
        assert third["response"]["predictions"][0]["label"] == "dog"
        assert_is_full(web.send_parts(submit(), parts[1]))


def test_what_was_refused_answered_or_broken_off_is_counted_no_more() -> None:
    with FakeOperations() as server, small(server) as web:
        for _ in range(4):
            image = b"cat" + bytes(IMAGE_BYTES - 3)
            assert web.call("POST", submit(), image).status == 202
            assert web.call("POST", submit(), image + b"x").status == 413
            assert web.call("POST", PREDICT, b"bad" + image).status == 400
            assert len(web.send_parts(submit(), ("a", image), ("b", b"dog")).json()) == 2
            assert web.held.now == 0
        with caller(web, submit(), bytes(HALF_BYTES), announced_bytes=IMAGE_BYTES) as broken:
            wait_until_held(web, HALF_BYTES)
            broken.shutdown(socket.SHUT_WR)
            assert broken.recv(64).startswith(b"HTTP/1.1 400")
        assert web.held.now == 0


def test_a_wrong_key_is_refused_before_the_body_is_read() -> None:
    with KeyedFrontEnd() as server, gateway(server.target, require_key=True) as web:
        head = "X-Request-Timeout: 300\r\nAuthorization: Bearer invented\r\n"
        with caller(web, submit(), b"", announced_bytes=100_000, headers=head) as connection:
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"WWW-Authenticate" in answer
        assert not server.submitted


def test_a_key_that_is_known_is_not_asked_about_again() -> None:
    with KeyedFrontEnd() as server, gateway(server.target, require_key=True) as web:
        for _ in range(3):
            assert web.call("POST", submit(), b"cat", Authorization=GOOD).status == 202
        assert server.list_count == 1
