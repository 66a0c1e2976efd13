"""What the OpenAPI document promises is kept by the running system, whatever is asked of it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.stack import Stack

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("DESPACHO_TEST_EXAMPLES", "8"))
"""For each operation of the document; more than in every run: a few hundred, before a release."""

SEED = os.environ.get("DESPACHO_TEST_SEED", "1")
"""The same requests each time: what is found must be the fault of a change."""


@pytest.fixture
async def stack(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(redis_server, tmp_path)
    stack.start_server()
    stack.start_worker()
    await stack.until_ready()
    yield stack
    await stack.close()


@pytest.mark.timeout(180 + 12 * EXAMPLES)
async def test_every_answer_is_one_that_the_document_allows(stack: Stack) -> None:
    gateway = stack.start(
        ["-m", "gateway"],
        {"GATEWAY_ADDRESS": "127.0.0.1:0", "GATEWAY_SERVER_ADDRESS": stack.address},
    )
    address = gateway.wait_for_line(r"address['\"]?[=:]\s*['\"]?([\w.:]+)").group(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", "tests/integration/schemathesis.toml"),
        *("run", f"http://{address}/openapi.json"),
        # Ends when the listener wants it to; `test_gateway.py` listens.
        *("--exclude-path", "/v1/stats"),
        *("--checks", "all", "--phases", "examples,coverage,fuzzing"),
        # As late as the gateway itself would give up.
        *("--request-timeout", "40"),
        *("--max-examples", str(EXAMPLES), "--generation-database", "none"),
        *("--seed", SEED, "--continue-on-failure", "--no-color", "--warnings", "off"),
        cwd=ROOT,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.integration.schemathesis_hooks",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos' / 'gen'}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    report = output.decode(errors="replace")
    assert process.returncode == 0, report
    assert "Tested: 10" in report
