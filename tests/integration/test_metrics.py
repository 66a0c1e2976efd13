"""Work that nobody waits for any more is counted where it is avoided, and where it is not.

Everything is real: a Valkey, a front-end process, worker processes. Only the
model is small.
"""

import asyncio
import os
import socket
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub
from prometheus_client.parser import text_string_to_metric_families

from dispatch import keys
from prediction.v1 import prediction_pb2
from tests.processes import Process
from tests.stack import Colour, Stack, colour_of, image_of, request_for
from tests.worker_process import MODEL, RAISE

FREE_PORT = "127.0.0.1:0"
LIMIT_S = 15.0

Call = grpc.aio.UnaryUnaryCall[prediction_pb2.PredictRequest, prediction_pb2.PredictResponse]
Series = tuple[str, ...]

AVOIDED = {
    ("avoided", stage, cause)
    for stage in ("decode", "inference")
    for cause in ("expired", "cancelled")
}
WASTED = {("wasted", "too_late"), ("wasted", "orphaned")}


async def started(stack: Stack, *, inference_ms: float) -> Process:
    """Start a front-end and a worker; return the worker."""
    stack.start_server()
    worker = stack.start_worker(inference_ms=inference_ms, batch=2, metrics_address=FREE_PORT)
    await stack.until_ready()
    return worker


def page_of(process: Process) -> str:
    url = process.wait_for_line(r"http://[\w.:]+/metrics").group()
    with urllib.request.urlopen(url, timeout=LIMIT_S) as response:  # noqa: S310 - our own
        return str(response.read().decode())


def counts(worker: Process) -> dict[Series, int]:
    """Return what a worker says, without the name of the model."""
    found: dict[Series, int] = {}
    for family in text_string_to_metric_families(page_of(worker)):
        for name, labels, value, *_ in family.samples:
            if name.startswith("despacho_work_"):
                assert labels["model"] == MODEL
                what = name.removeprefix("despacho_work_").removesuffix("_total")
                stage = [labels["stage"]] if "stage" in labels else []
                found[what, *stage, labels["cause"]] = int(value)
    return found


def expected(*series: Series) -> dict[Series, int]:
    """Return that these were counted once, and nothing else."""
    return {one: int(one in series) for one in AVOIDED | WASTED}


async def running(stack: Stack, colour: Colour) -> Call:
    """Return a call whose image is in the model."""
    call = stack.stub().Predict(request_for(colour), timeout=30)
    await stack.until(lambda: stack.inferred()[colour] == 1, LIMIT_S)
    return call


async def test_a_worker_that_wasted_nothing_says_so(stack: Stack) -> None:
    worker = await started(stack, inference_ms=0)
    assert colour_of(await stack.stub().Predict(request_for((1, 2, 3)))) == (1, 2, 3)
    assert counts(worker) == expected()


async def test_a_call_cancelled_while_the_model_runs_is_waste(stack: Stack) -> None:
    worker = await started(stack, inference_ms=1000)
    call = await running(stack, (1, 2, 3))
    call.cancel()
    await stack.until(lambda: counts(worker) == expected(("wasted", "too_late")), LIMIT_S)
    assert stack.totals() == {"accepted": 1, "cancelled": 1}
    stack.assert_nothing_is_left()


async def test_an_answer_for_a_front_end_that_is_gone_is_waste(stack: Stack) -> None:
    server = stack.start_server()
    worker = stack.start_worker(inference_ms=1000, metrics_address=FREE_PORT)
    await stack.until_ready()
    call = await running(stack, (1, 2, 3))
    server.kill()
    with stack.redis.client() as client:
        # As it ends by itself, a minute after its owner.
        assert client.delete(*client.scan_iter(keys.replies(MODEL, "*"))) == 1
    await stack.until(lambda: counts(worker) == expected(("wasted", "orphaned")), LIMIT_S)
    assert stack.totals() == {"accepted": 1, "orphaned": 1}
    with pytest.raises(grpc.aio.AioRpcError):
        await call


def gated(stack: Stack, stage: str, gate: Path) -> Process:
    """Start a worker whose first image waits at a stage until somebody writes to the gate."""
    os.mkfifo(gate)
    program = ("-m", "tests.chaos.worker", stack.redis.url, str(stack.journal))
    return stack.start(
        [*program, "--batch", "2", "--stop-at", stage, "--gate", str(gate)],
        {"WORKER_METRICS_ADDRESS": FREE_PORT},
    )


async def test_calls_that_end_behind_another_are_not_inferred(stack: Stack, tmp_path: Path) -> None:
    stack.start_server()
    worker = gated(stack, "inferring", tmp_path / "gate")
    await stack.until_ready()
    stub = stack.stub()
    first = stub.Predict(request_for((1, 2, 3)), timeout=30)
    await asyncio.to_thread(worker.wait_for_line, "reached inferring")
    # Its own limit: the timer of a caller might end first, and then the call is cancelled.
    stack.start_server(max_deadline_s=1)
    await stack.until_ready()
    late = stack.stub().Predict(request_for((4, 5, 6)), timeout=30)
    cancelled = stub.Predict(request_for((7, 8, 9)), timeout=30)
    # They do not end in the queue.
    await stack.until(lambda: stack.entries() == 3 and is_claimed(stack), LIMIT_S)
    with pytest.raises(grpc.aio.AioRpcError):
        await late
    cancelled.cancel()
    ended = {"accepted": 3, "expired": 1, "cancelled": 1}
    await stack.until(lambda: stack.totals() == ended, LIMIT_S)
    await asyncio.to_thread((tmp_path / "gate").write_bytes, b"go on")
    assert colour_of(await first) == (1, 2, 3)
    wanted = expected(("avoided", "inference", "expired"), ("avoided", "inference", "cancelled"))
    await stack.until(lambda: counts(worker) == wanted, LIMIT_S)
    assert set(stack.inferred()) == {(1, 2, 3)}
    assert stack.totals() == {**ended, "completed": 1}


def is_claimed(stack: Stack) -> bool:
    with stack.redis.client() as client:
        return all(
            client.xpending(stream, keys.GROUP)["pending"] == client.xlen(stream)
            for stream in keys.job_streams(MODEL)
        )


async def test_a_call_that_expires_between_claim_and_decoding_is_not_decoded(
    stack: Stack, tmp_path: Path
) -> None:
    # Its own limit: the timer of a caller might end first, and then the call is cancelled.
    stack.start_server(max_deadline_s=1)
    worker = gated(stack, "after-claim", tmp_path / "gate")
    await stack.until_ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.stub().Predict(request_for((1, 2, 3)), timeout=30)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.to_thread((tmp_path / "gate").write_bytes, b"go on")
    wanted = expected(("avoided", "decode", "expired"))
    await stack.until(lambda: counts(worker) == wanted, LIMIT_S)
    assert not stack.inferred()


async def test_a_front_end_has_a_page_too(stack: Stack) -> None:
    server = stack.start_server(metrics_address=FREE_PORT)
    assert "grpc_server_started_total" in await asyncio.to_thread(page_of, server)
    assert server.terminate() == 0


async def test_calls_that_end_in_the_queue_were_avoided(stack: Stack) -> None:
    # Its own limit: the timer of a caller might end first, and then the call is cancelled.
    server = stack.start_server(metrics_address=FREE_PORT, max_deadline_s=2)
    worker = stack.start_worker()
    await stack.until_ready()
    # One that is only stalled would be given jobs: its read waits in Redis.
    worker.terminate()
    stub = stack.stub()
    leaver = stub.Predict(request_for((1, 2, 3)), timeout=30)
    await stack.until(lambda: stack.entries() == 1, LIMIT_S)
    leaver.cancel()
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Predict(request_for((4, 5, 6)), timeout=30)
    wanted = {("avoided", "queue", cause): 1 for cause in ("expired", "cancelled")}

    async def is_counted() -> bool:
        return await asyncio.to_thread(counts, server) == wanted

    await stack.until(is_counted, LIMIT_S)


async def test_an_operation_cancelled_in_the_queue_was_avoided(stack: Stack) -> None:
    server = stack.start_server(metrics_address=FREE_PORT)
    worker = stack.start_worker()
    await stack.until_ready()
    # One that is only stalled would be given jobs: its read waits in Redis.
    worker.terminate()
    request = prediction_pb2.SubmitPredictionRequest(model=MODEL, image=image_of((1, 2, 3)))
    submitted = await stack.stub().SubmitPrediction(request)
    cancel = operations_pb2.CancelOperationRequest(name=submitted.name)
    await OperationsStub(stack.channel()).CancelOperation(cancel)
    zero = {("avoided", "queue", cause): 0 for cause in ("expired", "cancelled")}
    assert await asyncio.to_thread(counts, server) == {**zero, ("avoided", "queue", "cancelled"): 1}


async def test_an_operation_on_which_the_model_raises_is_counted_by_its_worker(
    stack: Stack,
) -> None:
    worker = await started(stack, inference_ms=0)
    for image in (image_of(RAISE), b"no image"):
        request = prediction_pb2.SubmitPredictionRequest(model=MODEL, image=image)
        await stack.stub().SubmitPrediction(request)
    wanted = {
        f'despacho_images_total{{model="{MODEL}",outcome="{outcome}"}} 1.0'
        for outcome in ("inference_failed", "failed")
    }

    async def is_counted() -> bool:
        return wanted <= {*(await asyncio.to_thread(page_of, worker)).splitlines()}

    await stack.until(is_counted, LIMIT_S)


def test_a_front_end_that_cannot_have_its_page_does_not_start(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = stack.start(
            ["-m", "server"],
            {"SERVER_ADDRESS": FREE_PORT, "SERVER_METRICS_ADDRESS": address},
        )
        assert server.wait() == 2
    assert f"server: cannot serve metrics at {address}" in server.log
