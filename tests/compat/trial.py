"""Real clients, unchanged, against a real server, broker and worker."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from inference import grpc_predict_v2_pb2
from tests.compat.clients.cells import COLOURS, CONTRACT, RAISES, elements_of
from tests.compat.guarded import start_guarded
from tests.environments import ROOT, python_of
from tests.redis_server import RedisServer
from tests.stack import Stack, image_of

HERE: Final = Path(__file__).parent
LIMIT_S: Final = 120

# Long enough for a timeout to be shorter, short enough for many calls.
INFERENCE_MS: Final = 100
BATCH: Final = 8


@dataclass(frozen=True, slots=True)
class Client:
    """One column of the table."""

    title: str
    """What it is called."""

    module: str
    """The program below `clients` that drives it."""

    requirements: str = ""
    """What is installed for it; empty: it is among our own tools."""

    before_python: tuple[int, int] = (4, 0)
    """First Python for which its packages have no wheels."""

    @property
    def name(self) -> str:
        """What tests call it."""
        return self.requirements.removesuffix(".txt") + ":" + self.module


CLIENTS: Final = (
    Client("tritonclient", "triton_sync", "tritonclient.txt"),
    Client("tritonclient, asyncio", "triton_aio", "tritonclient.txt"),
    Client("tritonclient of 2024", "triton_sync", "tritonclient-2024.txt", (3, 13)),
    Client("KServe", "kserve_grpc", "kserve.txt"),
    Client("grpcurl", "grpcurl"),
)
"""The columns, in their order."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one client."""

    versions: Mapping[str, str]
    """Its packages."""

    outcomes: Mapping[str, str]
    """By feature: `OK`, or a traceback."""


def possible() -> list[Client]:
    """Return the clients that can be installed for this Python and platform."""
    return [
        client
        for client in CLIENTS
        if sys.version_info[:2] < client.before_python
        # That of requirements-client.txt, which is not for every platform.
        and (client.module != "grpcurl" or Path(sys.executable).with_name("grpcurl").exists())
    ]


def tried(folder: Path) -> dict[str, Trial]:
    """Try all clients, at the same time; return what became of each, by name."""
    # Before the server starts, because it can take minutes.
    files = sorted({client.requirements for client in possible() if client.requirements})
    with ThreadPoolExecutor() as pool:
        installed = pool.map(python_of, (HERE / "requirements" / name for name in files))
        homes = {"": Path(sys.executable), **dict(zip(files, installed, strict=True))}
    pythons = {client.name: homes[client.requirements] for client in possible()}
    redis = RedisServer(folder)
    redis.start()
    try:
        return asyncio.run(_tried(pythons, Stack(redis, folder)))
    finally:
        redis.stop()


async def _tried(pythons: Mapping[str, Path], stack: Stack) -> dict[str, Trial]:
    images = stack.journal.parent
    for colour in (*COLOURS, RAISES):
        red, green, blue = bytes.fromhex(colour)
        (images / f"{colour}.png").write_bytes(image_of((red, green, blue)))
    contract = FileDescriptorProto()
    grpc_predict_v2_pb2.DESCRIPTOR.CopyToProto(contract)
    (images / CONTRACT).write_text(json.dumps(elements_of(contract)))
    try:
        stack.start_server()
        stack.start_worker(inference_ms=INFERENCE_MS, batch=BATCH)
        await stack.until_ready()
        await start_guarded(stack, images)
        trials = await asyncio.gather(
            *(
                _trial(
                    [str(pythons[client.name]), "-m", f"tests.compat.clients.{client.module}"],
                    stack.address,
                    images,
                )
                for client in possible()
            )
        )
        await stack.until(lambda: stack.entries() == 0, LIMIT_S)
        stack.assert_nothing_is_left()
    finally:
        await stack.close()
    return {client.name: trial for client, trial in zip(possible(), trials, strict=True)}


async def _trial(command: Sequence[str], address: str, images: Path) -> Trial:
    process = await asyncio.create_subprocess_exec(
        *command,
        address,
        str(images),
        cwd=ROOT,
        # Nothing of ours: the client must find its own stubs only.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    # A client may print before us.
    found = json.loads(out.decode().splitlines()[-1])
    return Trial(found["versions"], found["outcomes"])
