"""Requests are counted by route and status, and callers cannot make series up."""

from collections import Counter

from telemetry.metrics_catalogue import REQUEST_SECONDS, REQUESTS
from tests.gateway import gateway

NOBODY = "127.0.0.1:1"


def counted() -> Counter[tuple[str, ...]]:
    """Return how many requests there were, by method, route and status."""
    return Counter({labels: int(values[0]) for labels, values in REQUESTS.read().items()})


def timed() -> Counter[tuple[str, ...]]:
    found = REQUEST_SECONDS.read().items()
    return Counter({labels: int(sum(values[:-1])) for labels, values in found})


def test_requests_are_counted_by_route_and_status() -> None:
    before = counted(), timed()
    with gateway(NOBODY) as web:
        assert web.call("GET", "/healthz").status == 200
        assert web.call("DELETE", "/v1/models").status == 405
        for number in range(3):
            assert web.call("GET", f"/made/up/{number}").status == 404
        assert web.call("BREW", "/made/up").status == 404
        assert web.call("GET", "/v1/models/one", X_Request_Timeout="0.2").status >= 500
        assert web.call("GET", "/v1/models/two", X_Request_Timeout="0.2").status >= 500
    ended = counted() - before[0]
    assert ended["GET", "/healthz", "200"] == 1
    assert ended["GET", "none", "404"] == 3
    assert ended["OTHER", "none", "404"] == 1
    assert ended["DELETE", "none", "405"] == 1
    assert sum(ended.values()) == 8
    calls = timed() - before[1]
    assert calls["GET", "/v1/models/<model:model>"] == 2
    assert sum(calls.values()) == 8
    assert {route for _, route in calls} == {"/healthz", "none", "/v1/models/<model:model>"}
