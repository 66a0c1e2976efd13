"""Any order of operations on a real server, next to a model of what should be true.

Hypothesis makes up the order, and shortens one that fails to a few lines: each is
a rule of `tests/dispatch_calls.py` or `dispatch_workers.py`, with its arguments.
"""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.dispatch_machine import DispatchMachine
from tests.redis_server import RedisServer


# Shortening an example that fails takes longer than the usual limit allows.
@pytest.mark.timeout(400)
def test_any_order_of_operations_keeps_the_promises(redis_server: RedisServer) -> None:
    class OnThisServer(DispatchMachine):
        def __init__(self) -> None:
            super().__init__(redis_server)

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=120,
            stateful_step_count=40,
            deadline=None,
            derandomize=False,
            print_blob=True,
            # One at a time: each is shortened by running it some hundred times.
            report_multiple_bugs=False,
        ),
    )
