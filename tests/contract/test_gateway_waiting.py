"""A gateway that has more requests than threads."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any

import pytest

from client.messages import Messages
from gateway.http_server import BACKLOG
from gateway.open_connections import OpenConnections
from gateway.request_threads import RequestThreads
from tests.gateway import LIMIT_S, Web, gateway
from tests.holding_front_end import HoldingFrontEnd

PREDICT = "/v1/models/default:predict"
THREADS = 2
CALLERS = 5
SETTINGS = {"threads": THREADS, "max_stats_listeners": 0}
PATIENCE_S = 0.05


@pytest.fixture
def server() -> Iterator[HoldingFrontEnd]:
    with HoldingFrontEnd() as front_end:
        yield front_end


class Accepted:
    """Counts requests that have a thread, or wait for one."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def add(self) -> None:
        self._count.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._count.acquire(timeout=LIMIT_S)


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> Accepted:
    put, accepted = RequestThreads.put, Accepted()

    def counted(self: RequestThreads, connection: Any) -> None:
        put(self, connection)
        accepted.add()

    monkeypatch.setattr(RequestThreads, "put", counted)
    return accepted


class Caller:
    """One who says what is to be labelled, and may leave."""

    def __init__(self, web: Web) -> None:
        host, port = web.address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), LIMIT_S)

    def send(self, image: bytes, *headers: str) -> None:
        lines = f"POST {PREDICT} HTTP/1.1", "Host: localhost", f"Content-Length: {len(image)}"
        self._socket.sendall("\r\n".join((*lines, *headers, "", "")).encode() + image)

    def probe(self) -> None:
        self._socket.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def answer(self) -> HTTPResponse:
        response = HTTPResponse(self._socket)
        response.begin()
        return response

    def leave(self) -> None:
        self._socket.close()


@pytest.fixture
def web(server: HoldingFrontEnd) -> Iterator[Web]:
    with gateway(server.target, **SETTINGS, client_timeout_s=600) as running:
        yield running


@pytest.fixture
def arrive(web: Web) -> Iterator[Callable[[], Caller]]:
    """Return what connects a caller."""
    with ExitStack() as stack:

        def caller() -> Caller:
            arrived = Caller(web)
            stack.callback(arrived.leave)
            return arrived

        yield caller


@pytest.fixture
def busy(server: HoldingFrontEnd, accepted: Accepted, arrive: Callable[[], Caller]) -> list[Caller]:
    """Return callers who have all threads."""
    found = [arrive() for _ in range(THREADS)]
    for caller in found:
        caller.send(b"busy")
    accepted.wait_for(THREADS)
    server.wait_for_calls(THREADS)
    return found


def test_who_says_nothing_takes_no_thread(web: Web, arrive: Callable[[], Caller]) -> None:
    for _ in range(THREADS):
        arrive()
    assert web.call("GET", "/healthz").status == 200


def test_who_only_connects_does_so_while_all_threads_are_taken(
    busy: list[Caller], arrive: Callable[[], Caller]
) -> None:
    del busy
    # As the liveness probe does; so many that they are accepted, not only put in line.
    for _ in range(2 * BACKLOG):
        arrive().leave()


def test_who_left_before_there_was_a_thread_is_not_served(
    server: HoldingFrontEnd, busy: list[Caller], accepted: Accepted, arrive: Callable[[], Caller]
) -> None:
    gone = [arrive() for _ in range(CALLERS)]
    for caller in gone:
        caller.send(b"gone")
    accepted.wait_for(CALLERS)
    for caller in gone:
        caller.leave()
    there = arrive()
    there.send(b"there")
    accepted.wait_for(1)
    server.may_answer.set()
    assert [caller.answer().status for caller in (*busy, there)] == [200] * (THREADS + 1)
    assert Counter(each.image for each in server.requests) == {b"busy": THREADS, b"there": 1}


def test_a_probe_that_was_given_up_is_not_run(
    server: HoldingFrontEnd,
    busy: list[Caller],
    accepted: Accepted,
    arrive: Callable[[], Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, health = [], Messages.health

    def noted(self: Messages, *args: Any) -> Any:
        asked.append(args)
        return health(self, *args)

    monkeypatch.setattr(Messages, "health", noted)
    gone = [arrive() for _ in range(CALLERS)]
    for caller in gone:
        caller.probe()
    accepted.wait_for(CALLERS)
    for caller in gone:
        caller.leave()
    there = arrive()
    there.probe()
    accepted.wait_for(1)
    server.may_answer.set()
    there.answer()
    assert [caller.answer().status for caller in busy] == [200] * THREADS
    assert len(asked) == 1


def test_whose_time_was_over_before_there_was_a_thread_is_not_served(
    server: HoldingFrontEnd, busy: list[Caller], accepted: Accepted, arrive: Callable[[], Caller]
) -> None:
    late = arrive()
    late.send(b"late", f"X-Request-Timeout: {PATIENCE_S}")
    accepted.wait_for(1)
    # Their time goes on from here.
    assert not threading.Event().wait(PATIENCE_S)
    server.may_answer.set()
    answer = late.answer()
    assert (answer.status, json.load(answer)["reason"]) == (504, "EXPIRED_IN_QUEUE")
    assert [caller.answer().status for caller in busy] == [200] * THREADS
    assert [each.image for each in server.requests] == [b"busy"] * THREADS


def test_when_the_gateway_stops_all_are_told_so_at_once(
    server: HoldingFrontEnd, accepted: Accepted
) -> None:
    with ExitStack() as stack:
        with gateway(server.target, **SETTINGS, drain_s=0.1) as web:
            callers = [Caller(web) for _ in range(CALLERS)]
            for caller in callers:
                stack.callback(caller.leave)
                caller.send(b"cat")
            accepted.wait_for(CALLERS)
        for caller in callers:
            answer = caller.answer()
            assert (answer.status, json.load(answer)["reason"]) == (503, "DRAINING")


def test_who_has_sent_a_request_when_the_gateway_stops_is_answered(
    server: HoldingFrontEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = OpenConnections.stop
    server.may_answer.set()
    with ExitStack() as stack:
        with gateway(server.target, **SETTINGS) as web:
            caller = Caller(web)
            stack.callback(caller.leave)
            # One after the other is accepted.
            assert web.call("GET", "/healthz").status == 200

            def stop_too_soon(self: OpenConnections) -> None:
                stop(self)
                caller.send(b"cat")

            monkeypatch.setattr(OpenConnections, "stop", stop_too_soon)
        assert caller.answer().status == 200
