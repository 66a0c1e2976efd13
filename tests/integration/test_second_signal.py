"""Who is told to stop a second time does not wait any longer for what is in work.

Everything is real: a Valkey, front-end and worker processes. Only the model is small.
"""

import asyncio
import signal

import grpc
import pytest

from tests.processes import Process
from tests.stack import Stack, request_for

LIMIT_S = 20.0
"""Far less than what is waited for without a second signal."""

PATIENCE_S = 100
COLOUR = (1, 2, 3)

CUT_OFF = {1, -signal.SIGTERM}
"""Exit codes; the second one if one more signal comes when the interpreter listens no more."""


async def insist(stack: Stack, process: Process) -> int:
    """Tell it to stop until it has ended; return its exit code."""

    def has_ended() -> bool:
        if process.exit_code is None:
            process.send(signal.SIGTERM)
        return process.exit_code is not None

    await stack.until(has_ended, LIMIT_S)
    # Its children had their end of its log: they are gone, too, when it is closed.
    return await asyncio.to_thread(process.wait)


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_worker_ends_and_another_one_answers(stack: Stack, processes: int) -> None:
    stack.start_server()
    worker = stack.start_worker(
        inference_ms=PATIENCE_S * 1000, processes=processes, stop_grace_s=PATIENCE_S
    )
    await stack.until_ready(processes)
    answer = asyncio.ensure_future(stack.stub().Predict(request_for(COLOUR), timeout=30))
    await stack.until(lambda: COLOUR in stack.inferred(), LIMIT_S)
    assert await insist(stack, worker) in CUT_OFF
    stack.start_worker()
    assert (await answer).timing.attempt == 2
    stack.assert_nothing_is_left()


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_front_end_ends_and_its_callers_hear_of_it(stack: Stack, processes: int) -> None:
    server = stack.start_server(processes=processes, drain_s=PATIENCE_S)
    stack.start_worker(inference_ms=PATIENCE_S * 1000)
    await stack.until_ready()
    answer = asyncio.ensure_future(stack.stub().Predict(request_for(COLOUR), timeout=30))
    await stack.until(lambda: COLOUR in stack.inferred(), LIMIT_S)
    assert await insist(stack, server) in CUT_OFF
    with pytest.raises(grpc.aio.AioRpcError) as cut_off:
        await answer
    assert cut_off.value.code() is grpc.StatusCode.UNAVAILABLE
