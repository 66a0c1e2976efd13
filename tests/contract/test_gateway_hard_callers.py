"""Callers who would keep the threads of a gateway, its memory, or somebody else's request."""

import json
import select
import socket
import time
from collections.abc import Iterator

import pytest
import structlog

from gateway import http_server
from tests.fake_front_end import LIMIT_S, FakeFrontEnd
from tests.gateway import Web, gateway

POST = "POST /v1/models/default:predict HTTP/1.1\r\nHost: localhost\r\n"
PACE_S = 0.02


@pytest.fixture(scope="module")
def server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as front_end:
        yield front_end


@pytest.fixture(scope="module")
def web(server: FakeFrontEnd) -> Iterator[Web]:
    with gateway(server.target) as running:
        yield running


def answer_to(web: Web, text: str, *, is_dripping: bool = False) -> bytes:
    """Send this, then perhaps a byte now and then; return all that comes until the end."""
    host, port = web.address.rsplit(":", 1)
    answer = b""
    ends_s = time.monotonic() + LIMIT_S
    with socket.create_connection((host, int(port)), LIMIT_S) as caller:
        try:
            caller.sendall(text.encode())
            while time.monotonic() < ends_s:
                if select.select([caller], [], [], PACE_S)[0]:
                    piece = caller.recv(4096)
                    if not piece:
                        return answer
                    answer += piece
                elif is_dripping:
                    caller.sendall(b"x")
        except ConnectionError:
            return answer
    raise AssertionError(f"the connection stays open after {answer!r}")


@pytest.mark.parametrize(
    "size",
    [
        "Content-Length: -1",
        "Content-Length: +3",
        "Content-Length: 3_0",
        "Content-Length: 3\r\nContent-Length: 30",
        "Content-Length : 3",
        "Content-Length\t: 3",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked, chunked",
        "X-Long: 1\r\n Content-Length: 3",
        "X-Long: 1\rContent-Length: 3",
    ],
)
def test_a_body_of_doubtful_size_is_not_read(web: Web, server: FakeFrontEnd, size: str) -> None:
    answer = answer_to(web, f"{POST}{size}\r\n\r\ncatGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not server.requests


def test_chunks_in_a_protocol_without_them_are_refused(web: Web, server: FakeFrontEnd) -> None:
    head = POST.replace("HTTP/1.1", "HTTP/1.0") + "Connection: Keep-Alive\r\n"
    answer = answer_to(web, f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\ncat\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not server.requests


SMUGGLED = "\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        # What goes by CRLF alone sees one chunk of `0`, CR, LF and `X`, then one with a request.
        f"4;\ncat \r\n0\r\nX\r\n{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
        f"3\ncat\n0\n\n{SMUGGLED}",
        f"3\r\ncat\r\n0\r\nX\r\n{SMUGGLED}",
    ],
)
def test_chunks_hide_no_request_from_a_proxy(web: Web, server: FakeFrontEnd, chunks: str) -> None:
    answer = answer_to(web, f"{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}")
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not server.requests


@pytest.mark.parametrize("option", ["Close", "close, TE", "TE ,CLOSE", "TE\r\nConnection: close"])
def test_who_wants_the_connection_closed_may_say_so_in_any_way(web: Web, option: str) -> None:
    head = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: {option}\r\n\r\n"
    # Which fails if the connection stays open.
    assert b"Connection: close" in answer_to(web, head)


def test_a_header_with_an_underscore_stands_for_no_other(web: Web, server: FakeFrontEnd) -> None:
    head = f"{POST}Content-Length: 3\r\nContent_Length: 0\r\nConnection: close\r\n"
    assert answer_to(web, f"{head}\r\ncat").startswith(b"HTTP/1.1 200")
    assert [request.image for request in server.requests] == [b"cat"]
    server.requests.clear()


def test_a_size_that_does_not_go_into_a_message_is_too_large(
    web: Web, server: FakeFrontEnd
) -> None:
    answer = answer_to(web, f"{POST}Content-Length: {2**63}\r\n\r\ncat")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"IMAGE_TOO_LARGE" in answer
    assert not server.requests


def test_a_body_that_comes_slowly_is_given_up_at_the_deadline(
    web: Web, server: FakeFrontEnd
) -> None:
    head = f"{POST}X-Request-Timeout: 2\r\nContent-Length: 100000\r\n\r\n"
    assert answer_to(web, head, is_dripping=True).startswith(b"HTTP/1.1 408")
    assert not server.requests


def test_a_head_that_comes_slowly_is_given_up(server: FakeFrontEnd) -> None:
    with gateway(server.target, client_timeout_s=0.3) as web:
        assert answer_to(web, POST + "X-Long: ", is_dripping=True).startswith(b"HTTP/1.1 408")


def test_a_refused_body_that_comes_slowly_is_not_waited_for(
    server: FakeFrontEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "LINGER_S", 0.3)
    with gateway(server.target, require_key=True) as web:
        answer = answer_to(web, POST + "Content-Length: 100000\r\n\r\n", is_dripping=True)
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("NONSENSE\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\nHost: x\n\n", 400),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\n X-Long: 1\r\nHost: x\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nX Long: 1\r\nHost: x\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nNONSENSE\r\n\r\n", 400),
        ("GET http://[/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET //x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET ftp://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET http://a@x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (f"GET /{'a' * 40_000} HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (f"GET /healthz HTTP/1.1\r\nX-Long: {'a' * 40_000}\r\n\r\n", 431),
        (f"{POST}Transfer-Encoding: gzip\r\n\r\n", 501),
        ("GET /healthz HTTP/3.0\r\n\r\n", 505),
    ],
)
def test_what_is_no_request_gets_a_problem_too_and_leaves_a_line(
    web: Web, text: str, status: int
) -> None:
    with structlog.testing.capture_logs() as lines:
        head, _, body = answer_to(web, text).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["detail"]
    assert f"X-Request-Id: {problem['request_id']}".encode() in head
    [line] = lines
    assert (line["status"], line["request_id"]) == (status, problem["request_id"])


@pytest.mark.parametrize(
    ("target", "status"), [("/healthz", 200), ("/healthz?x", 200), ("", 200), ("/nowhere", 404)]
)
def test_a_whole_uri_is_as_good_as_its_path(web: Web, target: str, status: int) -> None:
    head = f"GET http://localhost{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert answer_to(web, head).startswith(f"HTTP/1.1 {status} ".encode())


def test_http_1_0_needs_no_host(web: Web) -> None:
    assert answer_to(web, "GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_the_live_figures_take_no_body_that_nobody_would_read(web: Web, framing: str) -> None:
    answer = answer_to(
        web, f"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n5\r\nabcde\r\n"
    )
    assert b"400 Bad Request" in answer.split(b"\r\n")[0]
    assert b"the live figures take no body" in answer
