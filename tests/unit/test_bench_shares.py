"""Where a process spends its time, by the first of our functions."""

import pytest

from tests.bench.shares import shares

MAIN = "thread (7): MainThread;<module> (server/__main__.py:9);run (uvloop/__init__.py:9)"


def test_time_falls_to_the_first_of_our_functions_and_waiting_to_none() -> None:
    found = shares(
        [
            f"{MAIN};respond (server/interceptor.py:1);predict (server/relay.py:2) 5",
            f"{MAIN};respond (server/interceptor.py:8);write (libc.so.6) 1",
            f"{MAIN};write (libc.so.6) 2",
            f"{MAIN};epoll_pwait (libc.so.6) 900",
        ]
    )
    assert found == {
        "respond (server/interceptor.py)": pytest.approx(6 / 8),
        "gRPC, event loop and libraries, in MainThread": pytest.approx(2 / 8),
    }
