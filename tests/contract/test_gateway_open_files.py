"""A gateway that may open few files, and more callers than that."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse

import pytest

from tests.fake_front_end import LIMIT_S
from tests.holding_front_end import HoldingFrontEnd
from tests.processes import Process

FILES = 128
THREADS = 2
IDLE = FILES // 2

RUN = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}))
runpy.run_module("gateway", run_name="__main__", alter_sys=True)
"""

ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/models/default:predict HTTP/1.1\r\nHost: localhost\r\n"
KEEP = POST + b"Content-Length: 3\r\n\r\ncat"


@pytest.fixture
def server() -> Iterator[HoldingFrontEnd]:
    with HoldingFrontEnd() as front_end:
        yield front_end


@contextmanager
def gateway_process(server: HoldingFrontEnd) -> Iterator[tuple[Process, tuple[str, int]]]:
    settings = {
        "GATEWAY_ADDRESS": "127.0.0.1:0",
        "GATEWAY_SERVER_ADDRESS": server.target,
        "GATEWAY_THREADS": str(THREADS),
        "GATEWAY_MAX_STATS_LISTENERS": "0",
        # No connection is idle for too long.
        "GATEWAY_CLIENT_TIMEOUT_S": "600",
        "GATEWAY_LOG_FORMAT": "json",
    }
    process = Process(["-c", RUN], settings)
    try:
        line = json.loads(process.wait_for_line(r'\{.*"event": "serving".*').group(0))
        host, port = line["address"].rsplit(":", 1)
        yield process, (host, int(port))
    finally:
        process.clean_up()


def answer_on(connection: socket.socket) -> HTTPResponse:
    response = HTTPResponse(connection)
    response.begin()
    assert response.status == 200
    response.read()
    return response


def test_idle_callers_make_room_for_others(server: HoldingFrontEnd) -> None:
    with gateway_process(server) as (process, address), ExitStack() as stack:

        def caller(text: bytes) -> socket.socket:
            connection = stack.enter_context(socket.create_connection(address, LIMIT_S))
            connection.sendall(text)
            return connection

        idle, says_close = [], []
        for _ in range(IDLE + THREADS + 1):
            idle.append(caller(ASK))
            says_close.append(answer_on(idle[-1]).will_close)
        # Half of the files are for others.
        assert not any(says_close[: IDLE - THREADS])
        assert says_close[-1]

        busy = [caller(KEEP) for _ in range(THREADS)]
        server.wait_for_calls(THREADS)
        waiting = [caller(ASK) for _ in range(FILES - IDLE)]
        assert idle[0].recv(4096) == b""

        server.may_answer.set()
        for connection in busy + waiting:
            answer_on(connection)
        assert process.terminate() == 0
        assert "no file is left" in process.log
        assert "Traceback" not in process.log
