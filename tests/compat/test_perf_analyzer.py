"""Triton's own tool for measuring, unchanged, against a real server and worker."""

import base64
import ctypes
import json
import os
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.compat.trial import CLIENTS, HERE, possible
from tests.environments import python_of
from tests.redis_server import RedisServer
from tests.stack import Stack, image_of
from tests.worker_process import MODEL

# The first run fetches packages; they are kept for the next.
pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

LIMIT_S: Final = 60
REQUESTS: Final = 20
CUDA: Final = "lib/python*/site-packages/nvidia/cuda_runtime/lib"


@pytest.fixture(scope="module")
def home() -> Path:
    """The environment that has the tool, and CUDA's runtime, which it wants even here."""
    [client] = [each for each in CLIENTS if each.requirements == "tritonclient-2024.txt"]
    if client not in possible():
        pytest.skip("its packages are not for this Python or platform")
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError:
        pytest.skip("perf_analyzer needs libb64.so.0d: apt-get install libb64-0d")
    home = python_of(HERE / "requirements" / client.requirements).parents[1]
    if not (home / "bin" / "perf_analyzer").exists() or not any(home.glob(CUDA)):
        pytest.skip("there is no perf_analyzer, or not what it needs, for this platform")
    return home


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    del home  # skipped before anything is started
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    redis.start()
    stack = Stack(redis, tmp_path_factory.mktemp("stack"))
    try:
        stack.start_server()
        stack.start_worker()
        await stack.until_ready()
        yield stack
    finally:
        await stack.close()
        redis.stop()


@pytest.mark.parametrize(
    "options",
    [(), ("-b", "4"), ("--async", "--streaming")],
    ids=["one-image", "four-images", "stream"],
)
def test_perf_analyzer_measures(
    home: Path, stack: Stack, tmp_path: Path, options: tuple[str, ...]
) -> None:
    image = image_of((200, 100, 20))
    content = base64.b64encode(struct.pack("<I", len(image)) + image).decode()
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"data": [{"image": {"b64": content}}]}))
    [cuda] = home.glob(CUDA)
    known = os.environ.get("LD_LIBRARY_PATH", "")
    ended = subprocess.run(
        [
            *(str(home / "bin" / "perf_analyzer"), "-m", MODEL, "-i", "grpc", "-u", stack.address),
            *("--input-data", str(data), "--request-count", str(REQUESTS), *options),
        ],
        env={**os.environ, "LD_LIBRARY_PATH": f"{cuda}:{known}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Request count: {REQUESTS}\n" in ended.stdout
    assert "compute output" in ended.stdout
