"""A whole system for tests: Redis, a front-end process, worker processes, a client."""

import asyncio
import io
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from dispatch import keys
from prediction.v1 import prediction_pb2, prediction_pb2_grpc
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.worker_process import LABELS, MODEL

Colour = tuple[int, int, int]

SERVER = ("-m", "server")
NO_WORKER_GRACE_S = 3
REFUSED_WITHIN_S = 10


@lru_cache(maxsize=1024)
def image_of(colour: Colour) -> bytes:
    """Return a PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def colours(count: int) -> list[Colour]:
    """Return colours that are all different."""
    return [(1 + i // 200, 1 + i % 200, 77) for i in range(count)]


def colour_of(response: prediction_pb2.PredictResponse) -> Colour:
    """Return the colour that a response of the model `colours` speaks of."""
    red, green, blue = (round(score * 255) for score in response.scores)
    return red, green, blue


class Stack:
    """Starts parts, and ends what it started."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.journal = folder / "journal"
        self.journal.touch()
        self.address = ""
        self.model = MODEL
        self._processes: list[Process] = []
        self._channels: list[grpc.aio.Channel] = []

    def start_server(self, command: Sequence[str] = SERVER, /, **settings: object) -> Process:
        """Start a front-end on a port of its own choice.

        Args:
            command: arguments of the Python interpreter.
            settings: without their prefix.
        """
        environment = {
            "REDIS_URL": self.redis.url,
            "SERVER_ADDRESS": "127.0.0.1:0",
            "SERVER_NO_WORKER_GRACE_S": str(NO_WORKER_GRACE_S),
            **{f"SERVER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        process = self.start([*command], environment)
        self.address = process.wait_for_line(r"address['\"]?[=:]\s*['\"]?([\w.:]+)").group(1)
        return process

    def start_worker(
        self, *, inference_ms: float = 0, batch: int = 8, processes: int = 1, **settings: object
    ) -> Process:
        """Start a worker of the model `colours`; it may not be ready yet."""
        options = (
            *("--inference-ms", str(inference_ms), "--batch", str(batch)),
            *("--processes", str(processes)),
        )
        return self.start(
            ["-m", "tests.worker_process", self.redis.url, str(self.journal), *options],
            {f"WORKER_{name.upper()}": str(value) for name, value in settings.items()},
        )

    def start(self, arguments: list[str], environment: dict[str, str]) -> Process:
        """Start a program of ours."""
        process = Process(arguments, environment)
        self._processes.append(process)
        return process

    def channel(self) -> grpc.aio.Channel:
        """Return a channel to the front-end started last, without retries."""
        channel = grpc.aio.insecure_channel(self.address, options=[("grpc.enable_retries", 0)])
        self._channels.append(channel)
        return channel

    def keep(self, *channels: grpc.aio.Channel) -> None:
        """Close these, too, at the end."""
        self._channels += channels

    def stub(self) -> "prediction_pb2_grpc.PredictionServiceAsyncStub":
        """Return the service of the front-end started last."""
        return prediction_pb2_grpc.PredictionServiceStub(self.channel())

    def inferred(self) -> Counter[Colour]:
        """Return how often each colour was given to a model."""
        words = self.journal.read_text().split()
        return Counter((int(w[1:3], 16), int(w[3:5], 16), int(w[5:7], 16)) for w in words)

    def batches(self) -> list[list[Colour]]:
        """Return the colours of each batch."""
        return [
            [(int(w[1:3], 16), int(w[3:5], 16), int(w[5:7], 16)) for w in line.split()]
            for line in self.journal.read_text().splitlines()
        ]

    def totals(self, model: str = "") -> dict[str, int]:
        """Return the outcomes counted in Redis; empty: of the one model."""
        with self.redis.client() as client:
            found = client.hgetall(keys.totals(model or self.model))
        return {name.decode(): int(count) for name, count in found.items()}

    def entries(self) -> int:
        """Return how many jobs wait or are in work."""
        with self.redis.client() as client:
            return sum(client.xlen(stream) for stream in keys.job_streams(self.model))

    async def predict_all(
        self, wanted: Sequence[Colour], *, timeout_s: float = 30
    ) -> list[prediction_pb2.PredictResponse]:
        """Return the answers to images of these colours, in their order."""
        stub = self.stub()
        calls = (stub.Predict(request_for(colour), timeout=timeout_s) for colour in wanted)
        return await asyncio.gather(*calls)

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], limit_s: float) -> None:
        """Wait until something outside of this process has become true."""
        async with asyncio.timeout(limit_s):
            while True:
                result = condition()
                if isinstance(result, Awaitable):
                    result = await result
                if result:
                    return
                await asyncio.sleep(0.02)

    async def until_ready(self, workers: int = 1, limit_s: float = 60) -> None:
        """Wait until the front-end knows that many ready workers."""
        stub = self.stub()

        async def is_ready() -> bool:
            try:
                request = prediction_pb2.GetModelRequest(name=self.model)
                found = await stub.GetModel(request, wait_for_ready=True)
            except grpc.aio.AioRpcError:
                return False
            return found.model.live_workers == workers

        await self.until(is_ready, limit_s)

    def assert_nothing_is_left(self) -> None:
        """Check that all jobs ended, and that the books balance."""
        assert self.entries() == 0
        counts = self.totals()
        assert counts.pop("accepted") == sum(counts.values()), self.totals()
        permanent = {
            keys.MODELS.encode(),
            keys.FRONT_ENDS.encode(),
            *(
                name(self.model).encode()
                for name in (keys.card, keys.workers, keys.load, keys.totals, keys.dead)
            ),
            *(stream.encode() for stream in keys.job_streams(self.model)),
        }
        with self.redis.client() as client:
            assert int(client.hget(keys.load(self.model), "bytes") or 0) == 0
            lasting = {key for key in client.scan_iter() if client.ttl(key) == -1}
        assert lasting <= permanent

    async def close(self) -> None:
        """End everything."""
        for channel in self._channels:
            await channel.close()
        for process in self._processes:
            process.clean_up()


def request_for(colour: Colour, *, request_id: str = "") -> prediction_pb2.PredictRequest:
    """Return a request whose answer shows that it is the right one."""
    return prediction_pb2.PredictRequest(
        model=MODEL,
        image=image_of(colour),
        include_scores=True,
        request_id=request_id,
        top_k=len(LABELS),
    )


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """Return the details of a failed call by the short name of their type."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            return details_of_status(status_pb2.Status.FromString(value))
    return {}


def details_of_status(status: status_pb2.Status) -> dict[str, Any]:
    """Return the details of a status by the short name of their type."""
    found: dict[str, Any] = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        packed.Unpack(message)
        found[name] = message
    return found


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the stable reason of a failed call."""
    info = details_of(error).get("ErrorInfo")
    return info.reason if info else ""


STALL = signal.SIGSTOP
RESUME = signal.SIGCONT


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """Return why a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, REFUSED_WITHIN_S)
    return caught.value
