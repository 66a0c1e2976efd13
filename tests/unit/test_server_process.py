"""`python -m server`, when it cannot start."""

import os
import socket
import subprocess
import sys


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
