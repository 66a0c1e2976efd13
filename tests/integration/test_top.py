"""`despacho top` on a terminal, before a real system."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.stack import Stack, request_for
from tests.terminal import on_terminal

NOTICED_S = 5.0
LIMIT_S = 20.0


@pytest.fixture
async def stack(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(redis_server, tmp_path)
    yield stack
    await stack.close()


async def test_a_killed_worker_is_gone_from_the_terminal_in_time(stack: Stack) -> None:
    stack.start_server()
    stack.start_worker()
    doomed = stack.start_worker()
    await stack.until_ready(2)
    arguments = ("-m", "client.cli", "top", "--server", stack.address)
    with on_terminal(arguments) as (terminal, process):

        def ready() -> int:
            return len(re.findall(r"\bready\b", terminal.screen))

        await stack.until(lambda: ready() == 2, LIMIT_S)
        # What works is seen to work.
        stub = stack.stub()
        await asyncio.gather(*(stub.Predict(request_for((n, 0, 0))) for n in range(20)))
        await stack.until(
            lambda: re.search(r"[1-9][\d.]* images/s  p50", terminal.screen) is not None, LIMIT_S
        )
        assert "despacho" in terminal.screen
        assert stack.address in terminal.screen
        doomed.kill()
        killed_at = time.monotonic()
        await stack.until(lambda: ready() == 1, LIMIT_S)
        assert time.monotonic() - killed_at < NOTICED_S
    assert process.returncode == 130
    # The terminal is as it was: the cursor is there again, the other screen is left.
    assert terminal.join().rstrip().endswith("\x1b[?25h\x1b[?1049l")


async def test_a_front_end_that_is_started_again_is_watched_again(stack: Stack) -> None:
    server = stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    arguments = ("-m", "client.cli", "top", "--server", stack.address)
    with on_terminal(arguments) as (terminal, process):
        await stack.until(lambda: "ready" in terminal.screen, LIMIT_S)
        server.kill()
        await stack.until(lambda: "server is away" in terminal.screen, LIMIT_S)
        # What was seen last is seen still.
        assert "ready" in terminal.screen
        stack.start_server(address=stack.address)
        await stack.until(lambda: "server is away" not in terminal.screen, LIMIT_S)
        await stack.until(lambda: "ready" in terminal.screen, LIMIT_S)
    assert process.returncode == 130
