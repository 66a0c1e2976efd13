"""The command line as a program among others: pipes, signals, terminals."""

import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Client
from tests.fake_front_end import LIMIT_S, FakeFrontEnd
from tests.fake_operations import FakeOperations

DESPACHO = (sys.executable, "-m", "client.cli")


@pytest.fixture
def server() -> Iterator[FakeFrontEnd]:
    with FakeFrontEnd() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(500):
        (tmp_path / f"{number:03}.jpg").write_bytes(b"cat")
    return tmp_path


def predict(server: FakeFrontEnd, *arguments: str | Path) -> list[str]:
    return [*DESPACHO, "predict", "--server", server.target, *map(str, arguments)]


def interrupted(process: "subprocess.Popen[bytes]") -> bytes:
    """Press Ctrl-C; return what the program says to that."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=LIMIT_S)[1]
    except subprocess.TimeoutExpired:
        process.kill()  # or this test would wait for it for ever
        raise


def until_empty(pipe: int) -> None:
    """Return once all that was written is read, and the reader waits for more."""
    give_up_at = time.monotonic() + LIMIT_S
    while any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    # Python misses a signal that comes between its last look for one and the read itself.
    time.sleep(0.3)


def test_a_folder_through_a_pipe(server: FakeFrontEnd, folder: Path) -> None:
    done = subprocess.run(
        predict(server, "--json", folder), capture_output=True, check=True, timeout=LIMIT_S
    )
    assert len(done.stdout.splitlines()) == 500
    assert done.stderr == b""
    assert server.stream_count == 1


def test_a_reader_that_goes_away_ends_it_quietly(server: FakeFrontEnd, folder: Path) -> None:
    with subprocess.Popen(
        predict(server, "--json", folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    assert server.call_ended.wait(LIMIT_S)


def test_a_reader_of_tables_that_goes_away_ends_it_quietly(
    server: FakeFrontEnd, folder: Path
) -> None:
    with subprocess.Popen(
        predict(server, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        ("health >&-", 0),
        ("predict cat.jpg >&- 2>&-", 0),
        ("predict cat.jpg cat.jpg 2>&-", 0),
        ("predict - <&-", 3),
    ],
)
def test_what_was_closed_is_not_missed(
    server: FakeFrontEnd, tmp_path: Path, command: str, exit_code: int
) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(DESPACHO)} {command}"],
        cwd=tmp_path,
        env={**os.environ, "DESPACHO_SERVER": server.target},
        stderr=subprocess.PIPE,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == exit_code
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
@pytest.mark.parametrize("arguments", [("predict",), ("predict", "--json"), ("--version",)])
def test_output_that_cannot_be_written_is_told_in_one_line(
    server: FakeFrontEnd, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    command = [*DESPACHO, *arguments]
    if "predict" in arguments:
        command += ["-s", server.target, str(tmp_path)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, check=False, timeout=LIMIT_S
        )
    assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_cancels_and_exits_with_130(
    server: FakeFrontEnd, tmp_path: Path, count: int
) -> None:
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(b"slow")
    with subprocess.Popen(predict(server, tmp_path), stderr=subprocess.PIPE) as process:
        assert server.slow_arrived.wait(LIMIT_S)
        assert interrupted(process) == b""
    assert process.returncode == 130
    assert server.call_ended.wait(LIMIT_S)


@pytest.mark.parametrize(
    "arguments",
    [("predict", "-"), ("predict", "-", "cat.jpg"), ("predict", "cat.jpg", "-"), ("submit", "-")],
    ids=" ".join,
)
def test_ctrl_c_ends_waiting_for_standard_input(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    image, end = os.pipe()
    with (
        FakeOperations() as server,
        subprocess.Popen(
            [*DESPACHO, *arguments, "--server", server.target],
            stdin=image,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        ) as process,
    ):
        # More than a pipe holds: it is written only when the program reads.
        os.write(end, bytes(1024 * 1024))
        until_empty(image)
        assert interrupted(process) == b""
    os.close(image)
    os.close(end)
    assert process.returncode == 130


def test_submit_shows_what_was_accepted_before_it_reads_standard_input(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    with (
        FakeOperations() as server,
        subprocess.Popen(
            [*DESPACHO, "submit", "--server", server.target, tmp_path / "cat.jpg", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert "cat.jpg" in process.stdout.readline()
        process.stdin.write("dog")
        process.stdin.close()
        assert process.stdout.readline().startswith("-  models/")
    assert process.returncode == 0


def test_ctrl_c_ends_waiting_with_130_and_not_the_operation() -> None:
    with FakeOperations() as server, Client(server.target) as client:
        name = client.submit(b"slow").name
        server.call_ended.clear()
        waiting = [*DESPACHO, "wait", "--server", server.target, name]
        with subprocess.Popen(waiting, stderr=subprocess.PIPE) as process:
            assert server.slow_arrived.wait(LIMIT_S)
            assert interrupted(process) == b""
        assert process.returncode == 130
        assert not client.operation(name).is_done


def test_submit_and_wait_make_a_pipeline(folder: Path) -> None:
    with FakeOperations() as server:
        arguments = ("--server", server.target)
        with subprocess.Popen(
            [*DESPACHO, "submit", *arguments, str(folder)], stdout=subprocess.PIPE
        ) as submitting:
            done = subprocess.run(
                [*DESPACHO, "wait", "--json", *arguments, "-"],
                stdin=submitting.stdout,
                capture_output=True,
                check=True,
                timeout=LIMIT_S,
            )
    assert submitting.returncode == 0
    assert done.stdout.count(b'"label": "cat"') == 500
    assert f'"image": "{folder}/000.jpg"'.encode() in done.stdout


def test_progress_is_shown_on_a_terminal_only(server: FakeFrontEnd, folder: Path) -> None:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        predict(server, "--json", folder),
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(end)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    shown = os.read(terminal, 65536)
    os.close(terminal)
    assert b"/500" in shown
    assert len(lines) == 500
    assert all(line.startswith(b"{") for line in lines)


def test_without_arguments_it_explains_itself() -> None:
    done = subprocess.run(DESPACHO, capture_output=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 2
    assert b"predict" in done.stderr + done.stdout


def test_help_loads_neither_grpc_nor_rich() -> None:
    program = (
        "import sys; from client.cli.app import app; app(['--version'], standalone_mode=False);"
        "sys.exit(bool({'grpc', 'rich', 'google.protobuf'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=LIMIT_S)
    assert done.returncode == 0
