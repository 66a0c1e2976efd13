import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bench import h2load
from tests.bench.loads import Side
from tests.bench.peers.peer import (
    PEERS,
    Peer,
    as_form,
    best_of,
    http_peer,
    requirements_of,
    to_infer,
)
from tests.bench.scenario_peers import kind_of, stopped

IMAGE = b"\xff\xd8\r\n--an image\0"

H2LOAD = """\
#!{python}
import sys
from pathlib import Path

log = next(each for each in sys.argv if each.startswith("--log-file=")).partition("=")[2]
Path(log).write_text("1000000\\t200\\t250\\n")
Path(__file__).with_name("asked").write_text("\\n".join(sys.argv[1:]))
print("finished in 1.50s, 2.00 req/s, 76.06KB/s")
print("requests: 1 total, 1 started, 1 done, 1 succeeded, 0 failed, 0 errored, 0 timeout")
print("traffic: 17.30KB (17716) total, 600B (600) headers, 11.52KB (360) data")
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the h2load that is found says how it was called."""
    program = tmp_path / "h2load"
    program.write_text(H2LOAD.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "asked"


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when it does; a signal takes a moment."""
    limit = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_a_program_and_all_it_needs_is_pinned(peer: Peer) -> None:
    assert find_spec(f"tests.bench.peers.{peer.name}_server") is not None
    lines = requirements_of(peer.name).read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert f"=={peer.version}" in "\n".join(pins)


def test_in_http1_each_call_in_flight_has_a_connection(asked: Path, tmp_path: Path) -> None:
    target = h2load.Target("inference", ("content-type: image/jpeg",), is_http1=True)
    body = tmp_path / "body"
    h2load.drive("127.0.0.1:1", body, requests=1, concurrency=64, target=target)
    told = asked.read_text().splitlines()
    assert {"--h1", "--clients=64", "--max-concurrent-streams=1"} <= set(told)
    assert [each for each in told if each.startswith("--header")] == [
        "--header=content-type: image/jpeg"
    ]
    assert told[-1] == "http://127.0.0.1:1/inference"


def test_grpc_has_few_connections(asked: Path, tmp_path: Path) -> None:
    h2load.drive("127.0.0.1:1", tmp_path / "body", requests=1, concurrency=64)
    told = asked.read_text().splitlines()
    assert {"--clients=4", "--max-concurrent-streams=16"} <= set(told)
    assert "--h1" not in told
    assert told[-1] == "http://127.0.0.1:1/prediction.v1.PredictionService/Predict"


@pytest.mark.parametrize("is_form", [False, True], ids=["as it is", "as a form"])
def test_an_image_arrives_whole(*, is_form: bool) -> None:
    arrived = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append((self.path, self.headers["Content-Type"], body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'[{"class_id": 7, "score": 0.5}, {"class_id": 3, "score": 0.1}]')

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    peer = http_peer("mosec", "mosec", path="inference", is_form=is_form)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert peer.answer(f"127.0.0.1:{server.server_port}", IMAGE) == 7
        thread.join()
    ((path, kind, body),) = arrived
    assert path == "/inference"
    if is_form:
        form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        part: Any = form.get_payload(0)
        assert part.get_param("name", header="content-disposition") == "image"
        body = part.get_payload(decode=True)
    assert body == IMAGE


def test_a_form_ends_behind_the_image() -> None:
    assert IMAGE + b"\r\n--" in as_form(IMAGE)
    assert as_form(IMAGE).endswith(b"--\r\n")


def test_the_protocol_of_mlserver_carries_the_image_as_it_is() -> None:
    assert list(to_infer(IMAGE).inputs[0].contents.bytes_contents) == [IMAGE]


def test_the_first_class_is_the_best() -> None:
    assert best_of(b'[{"class_id": 967.0, "score": 0.9}, {"class_id": 1, "score": 0.1}]') == 967


def test_who_is_not_asked_stands_still_and_goes_on_afterwards() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            process = psutil.Process(busy.pid)
            with stopped([Side("busy", "", {"all": [busy.pid]})]):
                wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
            wait_until(lambda: process.status() != psutil.STATUS_STOPPED)
        finally:
            busy.kill()


def test_peers_compute_as_the_system_does() -> None:
    told = kind_of("tensorflow").told
    assert (told.engine, told.batch) == ("tensorflow", 4)
    assert told.workers >= 1
    assert kind_of("null").told.workers == 1
