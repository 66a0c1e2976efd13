"""The gateway before the whole system: a real Valkey, front-end and workers."""

import asyncio
import functools
import io
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from PIL import Image

from tests.credentials import Keys
from tests.gateway import LIMIT_S, Web, gateway
from tests.processes import Process
from tests.stack import Stack, image_of
from tests.worker_process import MODEL

ResultT = TypeVar("ResultT")

RED = (200, 10, 10)
SUBMIT = f"/v1/models/{MODEL}:submit"
PREDICT = f"/v1/models/{MODEL}:predict"

NOTICED_S = 5.0
"""How soon a killed worker must be seen by those who watch."""


async def aside(call: Callable[..., ResultT], *arguments: Any, **more: Any) -> ResultT:
    """Make a call that blocks."""
    return await asyncio.to_thread(functools.partial(call, *arguments, **more))


async def started(stack: Stack, *, inference_ms: float = 0) -> tuple[Process, Process]:
    """Start a front-end and a worker, and return them."""
    server = stack.start_server()
    worker = stack.start_worker(inference_ms=inference_ms)
    await stack.until_ready()
    return server, worker


async def test_images_are_labelled_and_operations_fetched_later(stack: Stack) -> None:
    await started(stack)
    with gateway(stack.address) as web:
        await aside(labels_and_fetches, web)


def labels_and_fetches(web: Web) -> None:
    answer = web.call("POST", PREDICT, image_of(RED)).json()
    assert answer["predictions"][0]["label"] == "red"
    large = io.BytesIO()
    Image.new("RGB", (900, 900)).save(large, "BMP")
    # More pixels than this worker takes: it came whole, in parts, and was looked at there.
    refused = web.call("POST", PREDICT, large.getvalue()).json()
    assert (refused["reason"], refused["status"]) == ("IMAGE_TOO_LARGE", 413)
    assert "pixels" in refused["detail"]

    query = f"?requestId={uuid4()}"
    accepted = web.call("POST", SUBMIT + query, image_of(RED))
    assert accepted.status == 202
    name = accepted.json()["name"]
    assert accepted.headers["Location"] == f"/v1/{name}"
    again = web.call("POST", SUBMIT + query, image_of(RED))
    assert again.json()["name"] == name
    other = web.call("POST", SUBMIT + query, image_of((1, 2, 3)))
    assert (other.status, other.json()["reason"]) == (409, "REQUEST_ID_REUSED")

    short = f"/v1/operations/{name.rpartition('/')[2]}"
    for path in (f"/v1/{name}", short):
        done = web.call("GET", f"{path}?wait=10").json()
        assert done["done"]
        assert done["response"]["predictions"][0]["label"] == "red"
    assert web.call("DELETE", short).status == 204
    assert web.call("GET", f"/v1/{name}").status == 404
    gone = web.call("DELETE", short)
    assert (gone.status, gone.json()["reason"]) == (404, "OPERATION_NOT_FOUND")

    items = web.send_parts(SUBMIT, ("a.png", image_of(RED)), ("b.png", b"")).json()
    assert items[0]["operation"]["name"].startswith(f"models/{MODEL}/operations/")
    assert items[1]["problem"]["reason"] == "IMAGE_EMPTY"


async def test_a_wait_that_ends_first_returns_the_operation_as_it_is(stack: Stack) -> None:
    await started(stack, inference_ms=60_000)
    with gateway(stack.address) as web:
        name = (await aside(web.call, "POST", SUBMIT, image_of(RED))).json()["name"]
        answer = await aside(web.call, "GET", f"/v1/{name}?wait=0.3")
        assert answer.json()["done"] is False
        began = time.monotonic()
        answer = await aside(web.call, "GET", f"/v1/{name}?wait=10", X_Request_Timeout="0.5")
        assert answer.json()["done"] is False
        assert time.monotonic() - began < 5


async def test_a_killed_worker_is_seen_in_time(stack: Stack) -> None:
    _, doomed = await started(stack)
    stack.start_worker()
    await stack.until_ready(2)
    with gateway(stack.address) as web:
        seen_s = await aside(kills_and_watches, web, doomed)
    assert seen_s < NOTICED_S


def kills_and_watches(web: Web, doomed: Process) -> float:
    """Return how long it took until one worker less was shown, seconds."""
    killed_at = 0.0
    with web.events("/v1/stats") as events:
        for name, data in events:
            assert name == "stats"
            workers = sum(len(model["workers"]) for model in data["models"])
            if not killed_at and workers == 2:
                doomed.kill()
                killed_at = time.monotonic()
            elif killed_at and workers == 1:
                return time.monotonic() - killed_at
    raise AssertionError("the figures ended")


async def test_listeners_are_counted(stack: Stack) -> None:
    await started(stack)
    with gateway(stack.address, max_stats_listeners=2) as web:
        await aside(listens, web)


def listens(web: Web) -> None:
    with web.events("/v1/stats") as first, web.events("/v1/stats") as second:
        assert next(first)[0] == next(second)[0] == "stats"
        refused = web.call("GET", "/v1/stats")
        assert (refused.status, refused.json()["reason"]) == (503, "TOO_MANY_LISTENERS")


async def test_without_redis_callers_are_told_so(stack: Stack) -> None:
    await started(stack)
    with gateway(stack.address) as web:
        assert (await aside(web.call, "GET", "/readyz")).status == 200
        stack.redis.kill()
        began = time.monotonic()
        response = await aside(web.call, "POST", PREDICT, image_of(RED), X_Request_Timeout="9")
        assert time.monotonic() - began < LIMIT_S
        problem = response.json()
        assert (response.status, problem["reason"]) == (503, "BROKER_UNAVAILABLE")
        assert "Retry-After" in response.headers

        async def says_so() -> bool:
            return (await aside(web.call, "GET", "/readyz")).status == 503

        await stack.until(says_so, LIMIT_S)
        assert (await aside(web.call, "GET", "/healthz")).status == 200


async def test_a_restarted_front_end_is_found_again(stack: Stack) -> None:
    first, _ = await started(stack)
    with gateway(stack.address) as web:
        assert (await aside(web.call, "POST", PREDICT, image_of(RED))).status == 200
        port = stack.address.rpartition(":")[2]
        first.kill()
        down = await aside(web.call, "POST", PREDICT, image_of(RED))
        assert (down.status, down.json()["code"]) == (503, "UNAVAILABLE")
        stack.start_server(address=f"127.0.0.1:{port}")

        async def answers() -> bool:
            response: Awaitable[Any] = aside(web.call, "POST", PREDICT, image_of(RED))
            return bool((await response).status == 200)

        await stack.until(answers, LIMIT_S)


async def test_keys_and_scopes_are_those_of_the_caller(stack: Stack, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.toml")
    predict, admin = keys.add("phone", "predict"), keys.add("ops", "admin")
    operations = keys.add("archive", "operations")
    stack.start_server(api_keys_file=keys.path)
    stack.start_worker()
    with gateway(stack.address) as web:

        async def is_ready() -> bool:
            response = await aside(
                web.call, "POST", PREDICT, image_of(RED), Authorization=f"Bearer {predict}"
            )
            return response.status == 200

        await stack.until(is_ready, LIMIT_S)
        await aside(shows_scopes, web, predict, admin)
    with gateway(stack.address, require_key=True) as web:
        await aside(looks_at_keys_first, web, operations)


def looks_at_keys_first(web: Web, operations: str) -> None:
    accepted = web.call("POST", SUBMIT, image_of(RED), X_API_Key=operations)
    assert accepted.status == 202
    wrong = web.call("POST", SUBMIT, image_of(RED), X_API_Key="nonsense")
    assert (wrong.status, wrong.json()["reason"]) == (401, "CREDENTIALS_INVALID")


def shows_scopes(web: Web, predict: str, admin: str) -> None:
    nobody = web.call("POST", PREDICT, image_of(RED))
    assert (nobody.status, nobody.json()["reason"]) == (401, "CREDENTIALS_MISSING")
    assert web.call("POST", PREDICT, image_of(RED), X_API_Key=predict).status == 200
    wrong = web.call("POST", PREDICT, image_of(RED), X_API_Key="nonsense")
    assert (wrong.status, wrong.json()["reason"]) == (401, "CREDENTIALS_INVALID")
    for path in ("/v1/stats", SUBMIT):
        refused = web.call("GET" if "stats" in path else "POST", path, X_API_Key=predict)
        assert (refused.status, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    with web.events("/v1/stats", Authorization=f"Bearer {admin}") as events:
        assert next(events)[0] == "stats"


async def test_one_form_is_not_refused_for_being_several_calls(
    stack: Stack, tmp_path: Path
) -> None:
    keys = Keys(tmp_path / "keys.toml")
    key = keys.add("phone", "predict", "operations", max_in_flight=4)
    stack.start_server(api_keys_file=keys.path)
    stack.start_worker(inference_ms=20)
    with gateway(stack.address, api_key=key) as web:

        async def is_ready() -> bool:
            return (await aside(web.call, "POST", PREDICT, image_of(RED))).status == 200

        await stack.until(is_ready, LIMIT_S)
        images = [(f"{number}.png", image_of((number, 0, 0))) for number in range(20)]
        for path, member in ((PREDICT, "response"), (SUBMIT, "operation")):
            items = (await aside(web.send_parts, path, *images)).json()
            assert [member in item for item in items] == [True] * 20
    assert web.held.now == 0


async def test_a_key_with_one_request_a_second_is_enough(stack: Stack, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.toml")
    key = keys.add("sensor", "operations", requests_per_s=1)
    server = stack.start_server(api_keys_file=keys.path)
    stack.start_worker()
    with gateway(stack.address, require_key=True) as web:

        async def is_listed() -> bool:
            response = await aside(web.call, "GET", f"/v1/models/{MODEL}", X_API_Key=key)
            return response.status == 200

        await stack.until(is_listed, LIMIT_S)
        await asyncio.sleep(1)
        # Though the gateway has asked before whether the key is one.
        accepted = await aside(web.call, "POST", SUBMIT, image_of(RED), X_API_Key=key)
        assert accepted.status == 202
        await asyncio.sleep(1)
        short = f"/v1/operations/{accepted.json()['name'].rpartition('/')[2]}"
        response = await aside(web.call, "GET", short, X_API_Key=key)
        assert response.json()["name"] == accepted.json()["name"]
    assert server.log.count("RATE_LIMITED") >= 1


async def test_sigterm_lets_requests_end_and_listeners_go(stack: Stack) -> None:
    await started(stack, inference_ms=1500)
    process = stack.start(
        ["-m", "gateway"],
        {"GATEWAY_ADDRESS": "127.0.0.1:0", "GATEWAY_SERVER_ADDRESS": stack.address},
    )
    web = Web(process.wait_for_line(r"address['\"]?[=:]\s*['\"]?([\w.:]+)").group(1))
    first = threading.Event()
    listening = asyncio.create_task(aside(count_events, web, first))
    assert await aside(first.wait, LIMIT_S)
    asked = asyncio.create_task(aside(web.call, "POST", PREDICT, image_of(RED)))
    await stack.until(lambda: bool(stack.inferred()), LIMIT_S)
    code = await aside(process.terminate)
    assert code == 0
    assert (await asked).status == 200
    assert await listening > 0
    web.close()


async def test_who_is_cut_off_by_a_gateway_that_stops_is_told_so(stack: Stack) -> None:
    await started(stack, inference_ms=60_000)
    process = stack.start(
        ["-m", "gateway"],
        {
            "GATEWAY_ADDRESS": "127.0.0.1:0",
            "GATEWAY_SERVER_ADDRESS": stack.address,
            "GATEWAY_DRAIN_S": "0.5",
        },
    )
    address = process.wait_for_line(r"address['\"]?[=:]\s*['\"]?([\w.:]+)").group(1)
    web = Web(address)
    waiting = asyncio.create_task(aside(web.call, "POST", PREDICT, image_of(RED)))
    await stack.until(lambda: bool(stack.inferred()), LIMIT_S)
    sending = await aside(begun_upload, address)
    assert await aside(process.terminate) == 0
    response = await waiting
    assert (response.status, response.json()["reason"]) == (503, "DRAINING")
    assert response.headers["Retry-After"] == "1"
    with sending:
        answer = await aside(sending.recv, 4096)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"DRAINING" in answer
    assert process.log.count('"status": 503, "reason": "DRAINING"') == 2
    web.close()


def begun_upload(address: str) -> socket.socket:
    """Send the head of a request and some of its body; return the connection."""
    host, port = address.rsplit(":", 1)
    caller = socket.create_connection((host, int(port)), LIMIT_S)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    caller.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
    # The head was read, and so the request is in progress.
    assert caller.recv(64).startswith(b"HTTP/1.1 100")
    caller.sendall(b"abc")
    return caller


def count_events(web: Web, first: threading.Event) -> int:
    count = 0
    with web.events("/v1/stats") as events:
        for _ in events:
            count += 1
            first.set()
    return count
