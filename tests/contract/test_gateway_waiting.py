"""A gateway that has more requests than threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.request_threads import RequestThreads
from tests.gateway import LIMIT_S, Web, gateway
from tests.holding_front_end import HoldingFrontEnd

PREDICT = "/v1/models/default:predict"
CALLERS = 5


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Return what counts requests that have a thread, or wait for one."""
    put, count = RequestThreads.put, threading.Semaphore(0)

    def counted(self: RequestThreads, connection: Any) -> None:
        put(self, connection)
        count.release()

    monkeypatch.setattr(RequestThreads, "put", counted)
    return count


def test_when_the_gateway_stops_all_are_told_so_at_once(accepted: threading.Semaphore) -> None:
    with HoldingFrontEnd() as server, ThreadPoolExecutor(CALLERS) as pool:
        with gateway(server.target, threads=2, max_stats_listeners=0, drain_s=0.1) as web:
            callers = [Web(web.address) for _ in range(CALLERS)]
            answers = [pool.submit(each.call, "POST", PREDICT, b"cat") for each in callers]
            for _ in answers:
                assert accepted.acquire(timeout=LIMIT_S)
        for each in answers:
            answer = each.result()
            assert (answer.status, answer.json()["reason"]) == (503, "DRAINING")
    for caller in callers:
        caller.close()
