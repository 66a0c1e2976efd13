"""Who is let in where callers must bring keys."""

import pytest
import structlog

from gateway import key_demand
from tests.gateway import Web, gateway
from tests.keyed_front_end import GOOD, KeyedFrontEnd

PREDICT = "/v1/models/default:predict"


def outcome(web: Web, method: str = "POST", path: str = PREDICT, **headers: str) -> tuple[int, str]:
    response = web.call(method, path, b"cat" if method == "POST" else None, **headers)
    is_good = response.status == 200
    return response.status, "" if is_good else response.json()["reason"]


def test_keys_may_be_demanded_by_the_gateway() -> None:
    with KeyedFrontEnd() as server, gateway(server.target, require_key=True) as web:
        assert outcome(web) == (401, "CREDENTIALS_MISSING")
        for _ in range(3):
            assert outcome(web, Authorization=GOOD) == (200, "")
        # Probes, the page and the document need none.
        for path in ("/healthz", "/", "/openapi.json"):
            assert web.call("GET", path).status == 200
        assert (server.attempt_count, server.keyless_count) == (3, 1)


def test_to_a_front_end_that_looks_at_no_keys_nobody_is_let_in() -> None:
    with (
        KeyedFrontEnd() as server,
        gateway(server.target, require_key=True) as web,
        structlog.testing.capture_logs() as lines,
    ):
        server.is_trusting = True
        for method, path in (("POST", PREDICT), ("GET", "/v1/models"), ("GET", "/v1/stats")):
            # A page that gave its name the address of the gateway would say this, too.
            refused = outcome(web, method, path, X_Api_Key="made-up", Host="evil.example")
            assert refused == (503, "KEYS_NOT_CHECKED")
        assert outcome(web, "GET", "/readyz") == (503, "KEYS_NOT_CHECKED")
        assert web.call("GET", "/healthz").status == 200
        assert not server.attempt_count
        assert server.list_count == 0
        # It goes on until somebody mends it; one line is enough.
        assert [line["log_level"] for line in lines].count("error") == 1
        server.is_trusting = False
        assert outcome(web, Authorization=GOOD) == (200, "")


def test_a_front_end_that_took_the_place_of_another_is_asked_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_demand, "HOLDS_S", 0)
    with KeyedFrontEnd() as server, gateway(server.target, require_key=True) as web:
        assert outcome(web, Authorization=GOOD) == (200, "")
        server.is_trusting = True
        assert outcome(web, Authorization=GOOD) == (503, "KEYS_NOT_CHECKED")
        assert server.keyless_count == 2
