"""`python -m server`, when it cannot start, and what it writes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.credentials import Authority
from tests.processes import Process


def start(**settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "server"],
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def own_lines(process: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in process.stderr.splitlines() if line.startswith("server: ")]


def test_a_bad_setting_is_one_line_without_its_value() -> None:
    ended = start(SERVER_DRAIN_S="hunter2")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("server: drain_s: ")
    assert "hunter2" not in line


def test_a_taken_address_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = start(SERVER_ADDRESS=address)
    assert ended.returncode == 2
    assert own_lines(ended) == [
        f"server: cannot listen on {address}: the address is in use or not available"
    ]
    assert "Traceback" not in ended.stderr


def test_a_variable_that_opentelemetry_refuses_while_it_is_imported_is_one_line() -> None:
    ended = start(
        SERVER_ADDRESS="127.0.0.1:0",
        OTEL_TRACES_EXPORTER="console",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="many",
    )
    assert ended.returncode == 2
    [line] = own_lines(ended)
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in line
    assert "Traceback" not in ended.stderr


def test_a_stranger_that_does_not_shake_hands_puts_no_line_of_another_form_into_the_log(
    tmp_path: Path,
) -> None:
    identity = Authority(tmp_path).issue("server", "localhost")
    server = Process(
        ["-m", "server"],
        {
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "SERVER_ADDRESS": "127.0.0.1:0",
            "SERVER_TLS_CERT_FILE": str(identity.cert_file),
            "SERVER_TLS_KEY_FILE": str(identity.key_file),
        },
    )
    try:
        port = server.wait_for_line(r'"address": "127.0.0.1:(\d+)"').group(1)
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while stranger.recv(1024):
                pass
        assert server.terminate() == 0
        assert {json.loads(line)["service"] for line in server.log.splitlines()} == {"server"}
    finally:
        server.clean_up()
