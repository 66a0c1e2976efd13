"""`make up` and its like, for real: local processes, on ports of their own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import address
from deploy.local import leftovers, plan
from deploy.state import State
from tests.credentials import Authority, Keys
from tests.processes import Process

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.model, pytest.mark.timeout(400)]


class Checkout:
    """What `make` does in a checkout whose state is in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, str] = {
            "SERVER_ADDRESS": "127.0.0.1:0",
            "GATEWAY_ADDRESS": "127.0.0.1:0",
            "WORKER_PROCESSES": "1",
        }

    def environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SERVER_", "WORKER_", "GATEWAY_", "REDIS_", "DESPACHO_"))
        }
        own = {"DESPACHO_STATE": str(self.folder), "DESPACHO_MODE": "local"}
        return {**inherited, **own, **self.settings}

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as `make` does once everything is installed."""
        return subprocess.run(
            [sys.executable, "-m", "deploy", *words],
            cwd=ROOT,
            env=self.environment(),
            check=False,
            capture_output=True,
            text=True,
        )

    def processes(self) -> list[int]:
        return leftovers.marked(self.folder)

    def address(self) -> str:
        made = plan.load(State(self.folder).plan)
        assert made is not None
        return made.server_address

    def supervisor(self) -> int:
        return int((self.folder / "supervisord.pid").read_text())


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    one = Checkout(tmp_path / "state")
    yield one
    one.make("down")
    assert leftovers.end_marked(one.folder) == []


def test_up_scale_and_down_with_tls_and_keys(checkout: Checkout, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "127.0.0.1")
    caller = authority.issue("caller", "caller.example.org")
    keys = Keys(tmp_path / "keys.toml")
    checkout.settings |= {
        "SERVER_TLS_CERT_FILE": str(server.cert_file),
        "SERVER_TLS_KEY_FILE": str(server.key_file),
        "SERVER_TLS_CLIENT_CA_FILE": str(authority.cert_file),
        "SERVER_API_KEYS_FILE": str(keys.path),
    }
    key = keys.add("me", "predict")
    refused = checkout.make("up")
    assert refused.returncode == 1
    for missing in ("DESPACHO_TLS_CA", "DESPACHO_TLS_CERT", "DESPACHO_API_KEY"):
        assert f"{missing}=" in refused.stderr
    assert checkout.processes() == []

    checkout.settings |= {
        "DESPACHO_TLS_CA": str(authority.cert_file),
        "DESPACHO_TLS_CERT": str(caller.cert_file),
        "DESPACHO_TLS_KEY": str(caller.key_file),
        "DESPACHO_API_KEY": key,
    }
    up = checkout.make("up")
    assert up.returncode == 0, up.stderr
    assert key not in up.stdout + up.stderr
    assert key.encode() not in b"".join(environments(checkout.processes()))
    assert "espresso" in up.stdout
    started = checkout.processes()
    # Supervisor, Redis, server, gateway, worker.
    assert len(started) == 5

    again = checkout.make("up")
    assert again.returncode == 0, again.stderr
    assert "Already running" in again.stdout
    assert "espresso" in again.stdout
    assert checkout.processes() == started

    assert checkout.make("scale", "2").returncode == 0
    assert set(started) < set(checkout.processes())
    status = checkout.make("status")
    assert status.returncode == 0
    assert "workers: 2" in status.stdout

    assert checkout.make("scale", "1").returncode == 0
    assert checkout.processes() == started

    assert checkout.make("scale", "0").returncode == 0
    assert len(checkout.processes()) == len(started) - 1
    without = checkout.make("up")
    assert without.returncode == 0, without.stderr
    assert len(checkout.processes()) == len(started)

    command = re.search(r"curl .* --data-binary \S+ http\S+:predict", up.stdout)
    assert command is not None
    over_http = subprocess.run(
        ["sh", "-c", command[0]],
        cwd=ROOT,
        env=checkout.environment(),
        check=True,
        capture_output=True,
    )
    assert json.loads(over_http.stdout)["predictions"][0]["label"] == "espresso"

    predicted = checkout.make("predict", "docs/examples/coffee.jpg")
    assert "espresso" in predicted.stdout

    down = checkout.make("down")
    assert (down.returncode, down.stdout) == (0, "Stopped.\n")
    assert checkout.processes() == []
    assert checkout.make("down").stdout == "Nothing was running.\n"
    assert checkout.make("status").returncode == 1


def environments(pids: list[int]) -> list[bytes]:
    """Return what processes were given, where the system shows it."""
    paths = (Path(f"/proc/{pid}/environ") for pid in pids)
    return [path.read_bytes() for path in paths if path.exists()]


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a model of one's own, of colours."""
    folder = tmp_path_factory.mktemp("own")
    script = [sys.executable, "docs/examples/byo_model.py", str(folder)]
    subprocess.run(script, cwd=ROOT, check=True, capture_output=True)
    return str(folder / "colours-keras")


def test_a_model_of_ones_own_joins(checkout: Checkout, own_model: str) -> None:
    assert checkout.make("up").returncode == 0
    worker = Process(["-m", "deploy", "worker", own_model], checkout.environment())
    try:
        worker.wait_for_line("worker ready")
        target = checkout.address()
        predict = [sys.executable, "-m", "client.cli", "predict", "-s", target, "--json"]
        green = [*predict, "--model", "colours-keras", str(Path(own_model).parent / "green.png")]
        # The front-end learns of the new model with its next look.
        found = ""
        give_up_at = time.monotonic() + 10
        while not found and time.monotonic() < give_up_at:
            found = subprocess.run(
                green, cwd=ROOT, check=False, capture_output=True, text=True
            ).stdout
            found = found if "labels" in found else ""
        assert json.loads(found)["labels"][0]["label"] == "green"
        # Requests without a name mean what they meant before.
        assert "espresso" in checkout.make("up").stdout
        assert "espresso" in checkout.make("predict", "docs/examples/coffee.jpg").stdout
        assert checkout.make("status").returncode == 0
    finally:
        worker.terminate()
        worker.clean_up()


def test_another_model_than_last_time(checkout: Checkout, own_model: str) -> None:
    assert checkout.make("up").returncode == 0
    assert checkout.make("down").returncode == 0
    # Redis still knows the first one, which is thought to come back for a while.
    checkout.settings["WORKER_MODEL"] = own_model
    up = checkout.make("up")
    assert up.returncode == 0, up.stderr
    assert "by colours-keras" in up.stdout


def test_what_a_killed_supervisor_leaves_is_found_and_started_as_it_was(
    checkout: Checkout, tmp_path: Path
) -> None:
    first = {
        # Fixed, and so held by the orphans.
        "SERVER_ADDRESS": f"127.0.0.1:{address.free_port()}",
        "GATEWAY_ADDRESS": f"127.0.0.1:{address.free_port()}",
        "SERVER_QUEUE_MAX_JOBS": "77",
        "SERVER_API_KEYS_FILE": str(tmp_path / "keys.toml"),
    }
    key = {"DESPACHO_API_KEY": Keys(tmp_path / "keys.toml").add("me", "predict")}
    as_before = checkout.settings
    checkout.settings = {**as_before, **first, **key}
    assert checkout.make("up", "--workers", "2").returncode == 0
    before = checkout.processes()
    made = plan.load(State(checkout.folder).plan)
    assert made is not None
    assert made.redis_port is not None
    os.kill(checkout.supervisor(), signal.SIGKILL)

    assert "left over" in checkout.make("status").stdout
    # Without the key nothing is started: not the first time, and not as if keys were forgotten.
    checkout.settings = as_before
    for _ in range(2):
        refused = checkout.make("up")
        assert refused.returncode == 1
        assert "DESPACHO_API_KEY=" in refused.stderr
    checkout.settings = {**as_before, **key}
    up = checkout.make("up")
    assert up.returncode == 0, up.stderr
    assert "left over" in up.stdout
    assert "keeps the settings it was started with" in up.stdout
    after = checkout.processes()
    assert not set(before) & set(after)
    assert len(after) == len(before)
    assert plan.load(State(checkout.folder).plan) == made
    wanted = {f"{name}={value}".encode() for name, value in first.items()}
    assert all(wanted <= {*given.split(b"\0")} for given in environments(after))

    os.kill(checkout.supervisor(), signal.SIGKILL)
    assert "left over" in checkout.make("down").stdout
    assert checkout.processes() == []
    # Not only by the mark: nobody listens there any more, Redis included.
    assert not address.is_taken(f"127.0.0.1:{made.redis_port}")
    assert not address.is_taken(made.server_address)


def test_a_taken_port_is_said_and_starts_nothing(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        checkout.settings["SERVER_ADDRESS"] = taken
        up = checkout.make("up")
    assert up.returncode == 1
    assert f"another program listens on {taken}" in up.stderr
    assert checkout.processes() == []


def test_a_failed_start_shows_the_log_and_leaves_nothing(checkout: Checkout) -> None:
    checkout.settings["WORKER_MODEL"] = "/no/such/model"
    up = checkout.make("up")
    assert up.returncode == 1
    assert "worker-1 does not start" in up.stderr
    assert "'/no/such/model' is neither" in up.stderr
    assert checkout.processes() == []
