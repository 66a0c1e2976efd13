"""One worker of several processes: a child that ends is replaced, and nothing is lost.

Everything is real: a Valkey, a front-end process, a parent and its children. Only the
model is small.
"""

import asyncio
import os
import re
import signal
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from supervision.supervisor import FAILED_STARTS
from tests.processes import Process
from tests.stack import Stack, colour_of, colours, request_for

LIMIT_S = 20.0

STARTS_S = 50.0
"""For several starts, one after the other."""


def children_of(parent: Process) -> list[int]:
    """Return the process ids that it has started, the first one first."""
    return [int(number) for number in re.findall(r"process_id=(\d+)", plain(parent.log))]


def plain(text: str) -> str:
    """Return a log without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_child_is_replaced_and_loses_no_call(stack: Stack) -> None:
    stack.start_server()
    parent = stack.start_worker(inference_ms=100, batch=2, processes=2)
    await stack.until_ready(workers=2)
    first, second = children_of(parent)
    wanted = colours(40)
    answers = asyncio.create_task(stack.predict_all(wanted))
    await stack.until(lambda: len(stack.inferred()) > 4, LIMIT_S)
    os.kill(first, signal.SIGKILL)
    responses = await answers
    assert [colour_of(response) for response in responses] == wanted
    assert {response.timing.attempt for response in responses} == {1, 2}
    assert stack.totals() == {"accepted": 40, "completed": 40}
    await stack.until(lambda: len(children_of(parent)) == 3, LIMIT_S)
    await stack.until_ready(workers=2)
    assert is_alive(second)  # the other one was not touched
    names = {response.worker for response in await stack.predict_all(colours(40))}
    assert {name.split("-")[-2] for name in names} == {
        str(pid) for pid in children_of(parent) if pid != first
    }
    stack.assert_nothing_is_left()


async def test_sigterm_lets_every_process_finish_what_it_has(stack: Stack) -> None:
    stack.start_server()
    parent = stack.start_worker(inference_ms=50, batch=2, processes=2)
    await stack.until_ready(workers=2)
    wanted = colours(60)
    answers = asyncio.create_task(stack.predict_all(wanted))
    await stack.until(lambda: len(stack.inferred()) > 10, LIMIT_S)
    assert await asyncio.to_thread(parent.terminate) == 0
    assert not any(is_alive(child) for child in children_of(parent))
    stack.start_worker()
    responses = await answers
    assert [colour_of(response) for response in responses] == wanted
    assert {response.timing.attempt for response in responses} == {1}
    assert max(stack.inferred().values()) == 1
    stack.assert_nothing_is_left()


async def test_children_of_a_killed_parent_stop_by_themselves(stack: Stack) -> None:
    stack.start_server()
    parent = stack.start_worker(processes=2)
    await stack.until_ready(workers=2)
    children = children_of(parent)
    # Its own exit only: the children hold the other end of its log until they have ended too.
    os.kill(parent.pid, signal.SIGKILL)
    await stack.until_ready(workers=0)
    assert await asyncio.to_thread(parent.wait) == -signal.SIGKILL
    assert len(children) == 2
    assert plain(parent.log).count("worker stopped") == 2


async def test_a_model_that_cannot_be_loaded_ends_the_parent_with_the_reason(
    stack: Stack,
) -> None:
    parent = stack.start(
        [
            *("-m", "tests.worker_process", stack.redis.url, str(stack.journal)),
            *("--processes", "2", "--fail-to-load"),
        ],
        {},
    )
    assert await asyncio.to_thread(parent.wait, STARTS_S) == 1
    assert parent.log.count("RuntimeError: the weights are not there") == FAILED_STARTS
    assert len(children_of(parent)) == FAILED_STARTS  # one at a time: the second never began


async def test_a_model_that_is_not_there_ends_the_parent_at_once(stack: Stack) -> None:
    environment = {
        "REDIS_URL": stack.redis.url,
        "WORKER_MODEL": "/no/such/model",
        "WORKER_PROCESSES": "2",
        "WORKER_LOG_FORMAT": "console",
    }
    parent = stack.start(["-m", "worker"], environment)
    assert await asyncio.to_thread(parent.wait, LIMIT_S) == 2
    assert "worker: '/no/such/model' is neither" in parent.log
    assert len(children_of(parent)) == 1


async def test_the_counters_of_all_processes_are_one_sum(stack: Stack) -> None:
    stack.start_server()
    parent = stack.start_worker(
        inference_ms=1000, batch=1, processes=2, metrics_address="127.0.0.1:0"
    )
    await stack.until_ready(workers=2)
    stub = stack.stub()
    calls = [stub.Predict(request_for(one), timeout=30) for one in colours(2)]
    await stack.until(lambda: len(stack.inferred()) == 2, LIMIT_S)
    for call in calls:
        call.cancel()
    url = parent.wait_for_line(r"http://[\w.:]+/metrics").group()

    def wasted() -> float:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as response:  # noqa: S310 - our own
            page = response.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "despacho_work_wasted_total"
        )

    await stack.until(lambda: wasted() == 2, LIMIT_S)
    # What a process has counted stays when it is gone.
    os.kill(children_of(parent)[0], signal.SIGKILL)
    await stack.until(lambda: len(children_of(parent)) == 3, LIMIT_S)
    assert wasted() == 2
