"""The HTTP face of the gateway, over a real connection; the front-end behind it is a fake."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.sending import SMALL_BYTES
from prediction.v1 import prediction_pb2
from tests.fake_front_end import LIMIT_S, NO_WORKER, FakeFrontEnd
from tests.gateway import Web, gateway
from tests.keyed_front_end import GOOD, MISSING, KeyedFrontEnd

PREDICT = "/v1/models/default:predict"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as front_end:
        yield front_end


@pytest.fixture(scope="module")
def web(shared_server: FakeFrontEnd) -> Iterator[Web]:
    with gateway(shared_server.target) as running:
        yield running


@pytest.fixture
def server(shared_server: FakeFrontEnd) -> FakeFrontEnd:
    """Return the front-end behind `web`, without what it had from other tests."""
    shared_server.requests.clear()
    shared_server.chunk_sizes.clear()
    shared_server.refusals.clear()
    shared_server.attempt_count = 0
    shared_server.slow_arrived.clear()
    shared_server.call_ended.clear()
    return shared_server


def problem_of(response: Any) -> dict[str, Any]:
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body


def test_an_image_is_labelled_as_it_is_sent(web: Web, server: FakeFrontEnd) -> None:
    path = f"{PREDICT}?topK=1&priority=PRIORITY_HIGH&includeScores=true"
    response = web.call("POST", path, b"cat and so on", Content_Type="image/png")
    assert response.status == 200
    answer = response.json()
    assert answer["predictions"] == [{"label": "cat", "classId": 3, "score": 0.75}]
    assert answer["scores"] == [0, 0.25, 0, 0.75]
    assert answer["timing"]["decode"] == "0.003s"
    assert answer["requestId"] == response.headers["X-Request-Id"]
    (request,) = server.requests
    assert request.image == b"cat and so on"
    assert request.priority == prediction_pb2.PRIORITY_HIGH


@pytest.mark.parametrize(
    "kind", [None, "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_what_curl_and_others_call_an_image_is_one(web: Web, kind: str | None) -> None:
    headers = {"Content_Type": kind} if kind else {}
    assert web.call("POST", PREDICT, b"cat", **headers).status == 200


def test_what_cannot_be_an_image_is_refused(web: Web, server: FakeFrontEnd) -> None:
    response = web.call("POST", PREDICT, b"{}", Content_Type="application/json")
    assert problem_of(response)["reason"] == "MEDIA_TYPE_UNSUPPORTED"
    assert response.status == 415
    assert not server.requests


def test_a_large_image_goes_on_in_parts_while_it_arrives(web: Web, server: FakeFrontEnd) -> None:
    image = b"whale " + bytes(3 * SMALL_BYTES)
    assert web.call("POST", PREDICT, image).status == 200
    assert server.requests[0].image == image
    assert server.announced_bytes == len(image)
    assert len(server.chunk_sizes) > 2


def test_a_body_of_unknown_size_is_taken(web: Web, server: FakeFrontEnd) -> None:
    pieces = [b"owl ", bytes(2 * SMALL_BYTES), b"end"]
    response = web.call("POST", PREDICT, iter(pieces))
    assert response.status == 200
    assert server.requests[0].image == b"".join(pieces)


def test_a_refusal_comes_before_the_rest_of_a_large_image(web: Web, server: FakeFrontEnd) -> None:
    image = b"bad " + bytes(8 * 1024 * 1024)
    response = web.call("POST", PREDICT, image)
    assert problem_of(response)["reason"] == "IMAGE_UNDECODABLE"
    assert response.status == 400
    assert sum(server.chunk_sizes) < len(image)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("topK=0", "topK"),
        ("topK=1001", "topK"),
        ("topK=", "topK"),
        ("topK=%D9%A2", "topK"),  # two, in the digits of another script
        ("priority=HIGH", "priority"),
        ("includeScores=yes", "includeScores"),
        ("colour=red", "colour"),
        ("topK=1&topK=2", "topK"),
    ],
)
def test_a_wrong_parameter_is_named(web: Web, query: str, field: str) -> None:
    response = web.call("POST", f"{PREDICT}?{query}", b"cat")
    assert (response.status, problem_of(response)["field"]) == (400, field)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/operations/ABC", "operation"),
        ("/v1/models/default/operations/A_B", "operation"),
        ("/v1/models/Default/operations/abc", "model"),
    ],
)
def test_a_part_of_a_path_that_cannot_be_is_named(web: Web, path: str, field: str) -> None:
    for method in ("GET", "DELETE"):
        response = web.call(method, path)
        assert (response.status, problem_of(response)["field"]) == (400, field)


def test_a_full_queue_says_when_to_come_back(web: Web) -> None:
    response = web.call("POST", PREDICT, b"full")
    problem = problem_of(response)
    assert response.status == 429
    assert problem["type"] == "urn:despacho:reason:QUEUE_FULL"
    assert problem["code"] == "RESOURCE_EXHAUSTED"
    assert problem["retry_after"] == 2.5
    assert response.headers["Retry-After"] == "3"


def test_a_missing_worker_is_told_at_once(web: Web, server: FakeFrontEnd) -> None:
    server.refusals = [NO_WORKER]
    response = web.call("POST", PREDICT, b"cat")
    assert (response.status, problem_of(response)["reason"]) == (503, "NO_WORKER")
    # The caller decides whether to try again, not the gateway.
    assert server.attempt_count == 1


def test_a_failure_of_the_model_is_a_failure_of_the_server(web: Web) -> None:
    response = web.call("POST", PREDICT, b"crash")
    assert (response.status, problem_of(response)["reason"]) == (500, "INFERENCE_FAILED")


def test_a_front_end_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with gateway(f"127.0.0.1:{port}") as web:
        response = web.call("POST", PREDICT, b"cat")
        problem = problem_of(response)
        assert (response.status, problem["reason"]) == (503, "FRONT_END_UNREACHABLE")
        assert str(port) not in problem["detail"]
        assert "Retry-After" in response.headers
        assert web.call("GET", "/healthz").status == 200
        assert web.call("GET", "/readyz").status == 503


def test_a_deadline_passes_in_time() -> None:
    with FakeFrontEnd() as server, gateway(server.target) as web:
        response = web.call("POST", PREDICT, b"slow", X_Request_Timeout="1")
        assert (response.status, problem_of(response)["code"]) == (504, "DEADLINE_EXCEEDED")
        assert server.call_ended.wait(LIMIT_S)


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "inf", "nan"])
def test_a_deadline_that_is_none_is_refused(web: Web, text: str) -> None:
    response = web.call("POST", PREDICT, b"cat", X_Request_Timeout=text)
    assert (response.status, problem_of(response)["field"]) == (400, "X-Request-Timeout")


def test_a_caller_who_goes_away_cancels() -> None:
    # With a front-end of its own: no other call may end in the meantime.
    with FakeFrontEnd() as server, gateway(server.target) as web:
        host, port = web.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), LIMIT_S) as caller:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
            caller.sendall(head.encode() + b"slow")
            assert server.slow_arrived.wait(LIMIT_S)
            assert not server.call_ended.is_set()
        assert server.call_ended.wait(LIMIT_S)


def test_half_an_image_is_not_labelled(web: Web, server: FakeFrontEnd) -> None:
    host, port = web.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), LIMIT_S) as caller:
        size = f"Content-Length: {4 * SMALL_BYTES}"
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n{size}\r\n\r\n"
        caller.sendall(head.encode() + b"cat " + bytes(2 * SMALL_BYTES))
        caller.shutdown(socket.SHUT_WR)
        answer = caller.recv(64)
    assert answer.startswith(b"HTTP/1.1 400")
    assert not server.requests


def test_two_sizes_of_one_body_are_refused(web: Web, server: FakeFrontEnd) -> None:
    host, port = web.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), LIMIT_S) as caller:
        head = (
            f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        caller.sendall(head.encode() + b"3\r\ncat\r\n0\r\n\r\n")
        assert caller.recv(64).startswith(b"HTTP/1.1 400")
    assert not server.requests


def test_the_ids_of_a_request_are_passed_on_and_come_back(web: Web, server: FakeFrontEnd) -> None:
    response = web.call("POST", PREDICT, b"cat", X_Request_Id="mine-1")
    assert response.headers["X-Request-Id"] == "mine-1"
    assert server.requests[0].request_id == "mine-1"
    # One that cannot be in a log line is replaced.
    assert web.call("GET", "/healthz", X_Request_Id="a b").headers["X-Request-Id"] != "a b"


def test_a_key_that_is_wanted_and_missing_is_asked_for(web: Web, server: FakeFrontEnd) -> None:
    server.refusals = [MISSING]
    response = web.call("POST", PREDICT, b"cat")
    assert (response.status, problem_of(response)["reason"]) == (401, "CREDENTIALS_MISSING")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_body_may_be_limited(server: FakeFrontEnd) -> None:
    with gateway(server.target, max_body_bytes=1000) as web:
        assert web.call("POST", PREDICT, b"cat").status == 200
        for body in (bytes(1001), iter([bytes(600), bytes(600)])):
            response = web.call("POST", PREDICT, body)
            assert (response.status, problem_of(response)["reason"]) == (413, "BODY_TOO_LARGE")
    assert len(server.requests) == 1


def test_models_are_shown(web: Web) -> None:
    (model,) = web.call("GET", "/v1/models").json()["models"]
    assert (model["name"], model["state"], model["queueDepth"]) == (
        "default",
        "MODEL_STATE_READY",
        "5",
    )
    assert web.call("GET", "/v1/models/default").json()["labels"] == ["a", "other", "b", "c"]
    assert web.call("GET", "/v1/models/nope").status == 404


def test_what_is_not_there_and_what_is_not_allowed_are_problems(web: Web) -> None:
    assert problem_of(web.call("GET", "/v2/models"))["type"] == "about:blank"
    assert problem_of(web.call("GET", "/v1//models"))["status"] == 404
    response = web.call("PUT", "/v1/models")
    assert problem_of(response)["title"] == "Method Not Allowed"
    assert "GET" in response.headers["Allow"]


def test_pages_of_others_may_not_call(web: Web, server: FakeFrontEnd) -> None:
    response = web.call("POST", PREDICT, b"cat", Origin="https://evil.example")
    assert (response.status, problem_of(response)["reason"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert "Access-Control-Allow-Origin" not in response.headers
    assert web.call("OPTIONS", PREDICT, Origin="https://evil.example").status == 405
    assert not server.requests
    own = f"http://{web.address}"
    assert web.call("POST", PREDICT, b"cat", Origin=own).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.example:80"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
def test_a_page_whose_name_has_our_address_may_not_call(web: Web, method: str, host: str) -> None:
    response = web.call(method, PREDICT, Host=host, Origin=f"http://{host}")
    assert (response.status, problem_of(response)["reason"]) == (403, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "[::1]:8080", "192.0.2.7", "[::1]"])
def test_addresses_and_localhost_are_names_of_no_page(web: Web, host: str) -> None:
    assert web.call("GET", "/v1/models", Host=host).status == 200


@pytest.mark.parametrize("settings", [{"allowed_hosts": "a.example b.example"}, {"require_key": 1}])
def test_a_gateway_may_have_a_name(settings: dict[str, object]) -> None:
    with KeyedFrontEnd() as server, gateway(server.target, **settings) as web:
        response = web.call("POST", PREDICT, b"x", Host="B.example", Authorization=GOOD)
        assert response.status == 200


def test_pages_that_are_named_may_call(server: FakeFrontEnd) -> None:
    friend = "https://photos.example"
    with gateway(server.target, cors_origins=f"{friend} https://other.example") as web:
        asked = web.call("OPTIONS", PREDICT, Origin=friend, Access_Control_Request_Method="POST")
        assert asked.status == 204
        assert asked.headers["Access-Control-Allow-Origin"] == friend
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        answered = web.call("POST", PREDICT, b"cat", Origin=friend)
        assert answered.status == 200
        assert answered.headers["Access-Control-Allow-Origin"] == friend
        assert web.call("POST", PREDICT, b"cat", Origin="https://evil.example").status == 403


PUBLIC = "https://photos.example:8443"


def test_behind_a_proxy_with_a_host_of_its_own_both_ways_out_are_told(web: Web) -> None:
    refused = web.call("POST", PREDICT, b"cat", Origin=PUBLIC, Sec_Fetch_Site="same-origin")
    assert refused.status == 403
    advice = problem_of(refused)["advice"]
    assert all(word in advice for word in ("Host", "GATEWAY_ALLOWED_HOSTS", "GATEWAY_CORS_ORIGINS"))


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"allowed_hosts": "photos.example"}, {"Host": "photos.example:8443"}),
        ({"cors_origins": PUBLIC}, {}),
    ],
)
def test_behind_a_proxy_the_page_may_call(
    server: FakeFrontEnd, settings: dict[str, object], headers: dict[str, str]
) -> None:
    with gateway(server.target, **settings) as web:
        assert web.call("POST", PREDICT, b"cat", Origin=PUBLIC, **headers).status == 200


def test_the_page_may_load_nothing_from_elsewhere(web: Web) -> None:
    page = web.call("GET", "/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.data.decode()
    assert "://" not in text
    for name in ("style.css", "photos.js", "stats.js", "api.js", "result.js", "icon.svg"):
        assert web.call("GET", f"/static/{name}").status == 200
    assert web.call("GET", "/static/../settings.py").status == 404


def test_a_connection_serves_one_request_after_the_other(web: Web) -> None:
    host, port = web.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), LIMIT_S) as caller:
        stream, chunked = caller.makefile("rb"), "Transfer-Encoding: chunked"
        for _ in range(3):
            head = f"POST {PREDICT}?topK=1 HTTP/1.1\r\nHost: localhost\r\n{chunked}\r\n\r\n"
            caller.sendall(head.encode() + b"3\r\ncat\r\n0\r\n\r\n")
            assert b" 200 " in stream.readline()
            headers = dict(line.split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
            answer = json.loads(stream.read(int(headers[b"Content-Length"])))
            assert answer["predictions"][0]["label"] == "cat"
        stream.close()


def test_a_body_that_stops_coming_is_given_up(server: FakeFrontEnd) -> None:
    with gateway(server.target, client_timeout_s=0.3) as web:
        host, port = web.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), LIMIT_S) as caller:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
            caller.sendall(head.encode() + b"cat")
            assert caller.recv(64).startswith(b"HTTP/1.1 408")
    assert not server.requests


def test_only_the_headers_of_something_can_be_asked_for(web: Web) -> None:
    for path in ("/", "/healthz", "/v1/models"):
        response = web.call("HEAD", path)
        assert (response.status, response.data) == (200, b"")
