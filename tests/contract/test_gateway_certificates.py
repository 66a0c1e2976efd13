"""A gateway whose certificates are replaced while it serves, and those of its front-end."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway import front_end as following
from prediction.v1 import prediction_pb2 as pb
from server.tls import Certificates
from tests.credentials import Authority
from tests.fake_front_end import LIMIT_S, FakeFrontEnd
from tests.gateway import Web, gateway

SLOW = "/v1/models/default:predict?topK=1"
PAUSE_S = 0.02


class FrontEnd(FakeFrontEnd):
    """One that knows which connection each question came over."""

    peer = ""

    def ListModels(  # noqa: N802 - as the proto calls it
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        self.peer = context.peer()
        return super().ListModels(request, context)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.05)
    monkeypatch.setattr(following, "CONNECT_S", 1.0)


def wait_until(is_so: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(PAUSE_S)


def peer_of_a_call(web: Web, server: FrontEnd) -> str:
    assert web.call("GET", "/v1/models").status == 200
    return server.peer


def test_new_certificates_are_used_when_the_front_end_takes_them(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    shown = old.issue("server", "127.0.0.1")
    mine = old.issue("gateway", "gateway.example")
    # Both sides read the same roots, as those of a mounted Secret.
    roots = tmp_path / "roots.pem"
    roots.write_bytes(old.cert_file.read_bytes())
    settings: dict[str, object] = {
        "server_tls": True,
        "server_ca_file": str(roots),
        "server_cert_file": str(mine.cert_file),
        "server_key_file": str(mine.key_file),
    }
    files = Certificates(shown.cert_file, shown.key_file, roots)
    statuses: list[int] = []
    with (
        structlog.testing.capture_logs() as lines,
        FrontEnd(files.credentials()) as server,
        gateway(server.target, **settings) as web,
    ):
        before = peer_of_a_call(web, server)
        slow = threading.Thread(
            target=lambda: statuses.append(web.call("POST", SLOW, b"slow").status)
        )
        slow.start()
        assert server.slow_arrived.wait(LIMIT_S)
        # The gateway's own files are the first to come: nobody is served worse for it.
        mine.replace_with(new.issue("next-gateway", "gateway.example"))
        roots.write_bytes(new.cert_file.read_bytes())
        wait_until(lambda: any(line.get("reason", "").startswith("the front") for line in lines))
        assert peer_of_a_call(web, server) == before
        shown.replace_with(new.issue("next-server", "127.0.0.1"))
        wait_until(lambda: peer_of_a_call(web, server) != before)
        # What began before goes on where it is.
        assert not statuses
        server.call_ended.set()
        slow.join(LIMIT_S)
    assert statuses == [200]
    assert "new certificates in use" in [line["event"] for line in lines]
