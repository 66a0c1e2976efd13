"""What is decided before and while the local services start."""

import os
import re
import signal
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy import address, mode, prediction
from deploy.__main__ import EXIT_INTERRUPTED
from deploy.errors import StackError
from deploy.local import checkout, leftovers, plan
from deploy.local.logs import last_lines
from deploy.local.plan import Plan
from deploy.local.stack import LocalStack
from deploy.local.supervisor import ALREADY_STARTED, Process, StartWatch, Supervisor
from deploy.state import State, check_private


def process(state: str, *, ended_at: int = 0) -> Process:
    return Process("worker-1", state, pid=0, started_at=0, ended_at=ended_at, description="")


def test_a_port_with_a_listener_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert address.is_taken(f"0.0.0.0:{port}")
        with pytest.raises(StackError, match=f"listens on 127.0.0.1:{port}"):
            address.require_free(f"127.0.0.1:{port}")
    assert not address.is_taken(f"127.0.0.1:{port}")


def test_what_cannot_be_a_name_is_left_to_the_server() -> None:
    address.require_free("no..host:50051")


@pytest.mark.parametrize(
    ("listens", "connects"),
    [
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:50051", "[::1]:50051"),
        (":50051", "127.0.0.1:50051"),
        ("example.org:1", "example.org:1"),
        ("unix:/run/despacho.sock", "unix:/run/despacho.sock"),
    ],
)
def test_clients_connect_to_an_address_that_exists(listens: str, connects: str) -> None:
    assert address.for_client(listens) == connects


def test_the_wish_for_a_mode_comes_first() -> None:
    assert mode.choose("docker", "local").mode == "docker"
    assert mode.choose("", "docker").mode == "docker"
    with pytest.raises(StackError, match="local or docker"):
        mode.choose("cloud", None)


@pytest.mark.parametrize(
    "state",
    [
        "BACKOFF",
        # It took longer than startsecs to fail, and was started again at once.
        "RUNNING",
        "STARTING",
    ],
)
def test_one_end_may_be_bad_luck_and_two_are_a_failure(state: str) -> None:
    watch = StartWatch()
    assert watch.failed([process("STARTING")]) is None
    assert watch.failed([process(state, ended_at=5)]) is None
    assert watch.failed([process(state, ended_at=5)]) is None
    assert watch.failed([process(state, ended_at=12)]) is not None


@pytest.mark.parametrize(("state", "counts"), [("RUNNING", False), ("BACKOFF", True)])
def test_an_end_of_earlier_counts_if_the_next_try_is_to_come(state: str, *, counts: bool) -> None:
    watch = StartWatch()
    assert watch.failed([process(state, ended_at=5)]) is None
    assert (watch.failed([process("RUNNING", ended_at=12)]) is not None) == counts


def test_a_service_that_was_given_up_is_a_failure() -> None:
    assert StartWatch().failed([process("RUNNING"), process("FATAL")]) is not None


ONE_WORKER = Plan("127.0.0.1:1", "redis://127.0.0.1:1/0", None, workers=1, settings={})


class Waiting(Supervisor):
    """A supervisor that starts what waits for its next try only once it was stopped."""

    def __init__(self, states: dict[str, str], configuration: Path = Path("nowhere")) -> None:
        super().__init__(Path("nowhere"))
        self.states = states
        self.starts: dict[str, int] = {}
        self._configuration = configuration

    def _call(self, method: str, *arguments: object) -> Any:
        if method == "getState":
            return {}
        if method == "getAllProcessInfo":
            keys = ("name", "statename", "pid", "start", "stop", "description")
            return [
                dict(zip(keys, (name, state, 0, self.starts.get(name, 0), 0, ""), strict=True))
                for name, state in self.states.items()
            ]
        if method == "reloadConfig":
            named = re.findall(r"(?m)^\[program:(.+)\]", self._configuration.read_text())
            added = [name for name in named if name not in self.states]
            return [[added, [], [name for name in self.states if name not in named]]]
        name = str(arguments[0])
        if method == "stopProcess":
            self.states[name] = "STOPPED"
        elif method == "removeProcessGroup":
            del self.states[name]
        elif self.states.get(name) in {"RUNNING", "BACKOFF"}:
            raise xmlrpc.client.Fault(ALREADY_STARTED, name)
        else:
            self.states[name] = "STARTING"
        return True


def test_what_waits_for_its_next_try_is_started_at_once() -> None:
    supervisor = Waiting({"server": "RUNNING", "worker-1": "BACKOFF", "worker-2": "FATAL"})
    assert supervisor.start_ended() == ["worker-1", "worker-2"]
    assert set(supervisor.states.values()) == {"RUNNING", "STARTING"}


@pytest.mark.parametrize("state", ["FATAL", "BACKOFF", "EXITED"])
def test_what_has_ended_is_started_before_more_workers_are_waited_for(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = State(tmp_path)
    states = {"server": state, "gateway": "RUNNING", "worker-1": "RUNNING"}

    def live_workers(_: str) -> dict[str, int]:
        return {"m": len(states) - 2} if states["server"] == "STARTING" else {}

    monkeypatch.setattr(prediction, "live_workers", live_workers)
    monkeypatch.setattr(
        prediction, "wait_for_workers", partial(prediction.wait_for_workers, limit_s=0)
    )
    stack = LocalStack(made)
    stack._supervisor = Waiting(states, made.configuration)
    with made.locked():
        assert stack._revived(ONE_WORKER, 2).workers == 2
    assert plan.load(made.plan) == ONE_WORKER.with_workers(2)
    assert states == {
        "server": "STARTING",
        "gateway": "RUNNING",
        "worker-1": "RUNNING",
        "worker-2": "STARTING",
    }


def test_workers_that_come_back_are_not_taken_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes a moment until the front-end says anything, and the new worker never gets ready.
    looks: Iterator[dict[str, int]] = iter([{}])
    monkeypatch.setattr(prediction, "live_workers", lambda _: next(looks, {"m": 1}))
    monkeypatch.setattr(prediction, "PAUSE_S", 0.01)
    monkeypatch.setattr(
        prediction, "wait_for_workers", partial(prediction.wait_for_workers, limit_s=0.1)
    )
    made = State(tmp_path)
    stack = LocalStack(made)
    states = {"server": "FATAL", "gateway": "RUNNING", "worker-1": "RUNNING"}
    stack._supervisor = Waiting(states, made.configuration)
    with made.locked(), pytest.raises(StackError, match="0 of 1 workers"):
        stack._revived(ONE_WORKER, 2)


def test_workers_that_do_not_start_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"server": "RUNNING", "gateway": "RUNNING", "worker-1": "RUNNING"}
    made = State(tmp_path)
    stack = LocalStack(made)
    stack._supervisor = Waiting(states, made.configuration)

    def fail(*_: object) -> None:
        assert "worker-2" in states
        states["worker-2"] = "BACKOFF"
        raise StackError("worker-2 does not start")

    monkeypatch.setattr(prediction, "live_workers", lambda _: {})
    monkeypatch.setattr(prediction, "wait_for_workers", fail)
    with made.locked():
        ONE_WORKER.save(made.plan)
    with pytest.raises(StackError, match="worker-2 does not start"):
        stack.scale(2)
    assert plan.load(made.plan) == ONE_WORKER
    assert "worker-2" not in states
    assert "worker-2" not in made.configuration.read_text()


def test_a_start_after_a_reboot_that_fails_forgets_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        assert plan.load(state.plan) != kept
        raise StackError("no supervisor")

    monkeypatch.setattr(LocalStack, "_start_supervisor", fail)
    state = State(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        settings = {
            "SERVER_ADDRESS": taken,
            "GATEWAY_ADDRESS": "127.0.0.1:0",
            "REDIS_URL": "redis:",
        }
        kept = plan.make(settings, 2, None)
        with state.locked():
            kept.save(state.plan)
            state.mode.write_text("local\n")
        with pytest.raises(StackError, match=r"SERVER_ADDRESS=\S+ make down up\n  with all"):
            LocalStack(state).up(3)
    with pytest.raises(StackError, match="no supervisor"):
        LocalStack(state).up(3)
    assert plan.load(state.plan) == kept
    assert state.recorded_mode() == "local"
    LocalStack(state).down()
    assert state.recorded_mode() is None


def test_settings_that_cannot_be_read_after_a_reboot_are_not_left_out(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.locked():
        state.mode.write_text("local\n")
        state.plan.write_text("{")
    with pytest.raises(StackError, match="cannot be read"):
        LocalStack(state).up(None)


def test_services_that_run_older_code_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Waiting(dict.fromkeys(("redis", "server", "worker-1"), "RUNNING"))
    supervisor.starts = {"redis": 50, "server": 200, "worker-1": 50}
    stack = LocalStack(State(tmp_path))
    stack._supervisor = supervisor
    monkeypatch.setattr(checkout, "changed_at", lambda: 100.5)
    stack._revived(ONE_WORKER, None)
    told = capsys.readouterr().out
    assert "before a change: worker-1\n" in told
    assert "make down up\n  with all settings that it had" in told  # `make down` forgets them
    supervisor.starts["worker-1"] = 200
    stack._revived(ONE_WORKER, None)
    assert "before a change" not in capsys.readouterr().out


def test_code_changes_with_its_files_and_packages_and_not_by_being_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / ".installed-run"
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setattr(checkout, "INSTALLED", installed)
    touch(tmp_path / "server" / "app.py", 10)
    assert checkout.changed_at() == 10
    touch(tmp_path / "server" / "__pycache__" / "app.pyc", 20)
    touch(tmp_path / "docs" / "operations.md", 20)
    assert checkout.changed_at() == 10
    touch(tmp_path / "dispatch" / "lua" / "enqueue.lua", 30)
    assert checkout.changed_at() == 30
    touch(installed, 40)
    assert checkout.changed_at() == 40


def touch(path: Path, at: int) -> None:
    """Make a file that was changed at that time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (at, at))


def test_no_socket_means_no_supervisor(tmp_path: Path) -> None:
    assert not Supervisor(tmp_path / "supervisor.sock").is_running()


def test_only_marked_processes_are_ours_and_are_ended(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "one-more"
    sleepers = [
        subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            env={**os.environ, leftovers.MARK: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for folder in folders
    ]
    try:
        for sleeper in sleepers:
            assert sleeper.stdout is not None
            sleeper.stdout.readline()
        assert leftovers.marked(folders[0]) == [sleepers[0].pid]
        assert leftovers.end_marked(folders[0]) == []
        assert sleepers[0].wait(10) != 0
        assert sleepers[1].poll() is None
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.communicate()


def test_a_log_shows_what_came_after_the_start(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("old\n")
    size = log.stat().st_size
    with log.open("a") as file:
        file.write("new 1\nnew 2\n")
    assert last_lines(log, 1, after_bytes=size).splitlines() == ["--- server.log", "new 2", "---"]
    assert "old" not in last_lines(log, 9, after_bytes=size)
    # Shorter than it was: rotated, so all of it is new.
    assert "old" in last_lines(log, 9, after_bytes=1000)
    assert last_lines(tmp_path / "nothing.log", 9) == ""


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StackError, match="written by others"):
        check_private(tmp_path)


@pytest.mark.parametrize(("is_ignored", "code"), [(True, 0), (False, EXIT_INTERRUPTED)])
def test_a_terminal_that_closes_ends_a_command_unless_that_is_not_wanted(
    tmp_path: Path, *, is_ignored: bool, code: int
) -> None:
    wish = signal.SIG_IGN if is_ignored else signal.SIG_DFL
    state = State(tmp_path)
    log = state.logs / "server.log"
    with state.locked():
        log.touch()
    # In the place of `tail`, which would follow the log for ever.
    tail = tmp_path / "tail"
    tail.write_text("#!/bin/sh\necho started; read line\n")
    tail.chmod(0o700)
    # Inherited, as from `nohup`.
    before = signal.signal(signal.SIGHUP, wish)
    try:
        command = subprocess.Popen(
            [sys.executable, "-m", "deploy", "logs"],
            env={
                **os.environ,
                "DESPACHO_STATE": str(tmp_path),
                "DESPACHO_MODE": "local",
                "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    with command:
        assert command.stdout is not None
        command.stdout.readline()
        command.send_signal(signal.SIGHUP)
        command.communicate(b"\n")
    assert command.returncode == code
