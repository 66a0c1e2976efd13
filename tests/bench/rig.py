"""The real system for one scenario, beside the limits that it is compared with."""

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc

from deploy.address import free_port
from prediction.v1 import prediction_pb2_grpc
from tests.bench.h2load import LoadFailed
from tests.bench.payloads import MODEL, answer_to, model_directory, payload, request
from tests.bench.usage import MIB
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.whole_stack import WholeStack

SAMPLES: Final = 64
LAST_WORDS_LINES: Final = 10
READY_S: Final = 240.0
"""`auto` measures engines first."""

ANY_PORT: Final = "127.0.0.1:0"
MAX_MESSAGE_BYTES: Final = 32 * MIB


class Rig(WholeStack):
    """Starts the parts with default settings; metrics are on, and logs go to files.

    Args:
        redis: not started yet.
        folder: for logs and whatever a scenario writes.
    """

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        super().__init__(redis, folder)
        self.folder = folder
        self.model = MODEL
        self._numbers = itertools.count()
        self._starting: list[Process] = []
        self.settings: dict[str, str] = {}
        """What the parts were told that is not as by default, addresses aside."""

    def start(self, arguments: list[str], environment: dict[str, str]) -> Process:
        """Start a program of ours; its log goes to a file."""
        log_file = self.folder / f"process-{next(self._numbers)}.log"
        process = Process(arguments, environment, log_file=log_file)
        self._processes.append(process)
        self._starting.append(process)
        return process

    def front_end(self, **settings: object) -> Process:
        """Start a front-end; `address` is its own."""
        # Workers take longer to start than calls would wait for the first.
        self._note("front-end", {"no_worker_grace_s": 20, **settings})
        return self.start_server(
            **{"no_worker_grace_s": 20, "metrics_address": ANY_PORT, **settings}
        )

    def worker(self, model: str | Path, **settings: object) -> Process:
        """Start a worker; it may not be ready yet."""
        return self.start(["-m", "worker"], self.worker_environment(model, **settings))

    def sleeper(self, model: Path, sleep_ms: float, **settings: object) -> Process:
        """Start a worker whose engine sleeps."""
        environment = self.worker_environment(model, **settings)
        return self.start(["-m", "tests.bench.sleeper", str(sleep_ms)], environment)

    def worker_environment(self, model: str | Path, **settings: object) -> dict[str, str]:
        """Return what a worker of a model is told."""
        self._note("worker", settings)
        return {
            "REDIS_URL": self.redis.url,
            "WORKER_MODEL": str(model),
            "WORKER_METRICS_ADDRESS": ANY_PORT,
            **{f"WORKER_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def _note(self, part: str, settings: Mapping[str, object]) -> None:
        for name, value in settings.items():
            if name != "address":
                self.settings[f"{part}, {name}"] = str(value)

    async def no_op(self) -> tuple[Process, Process]:
        """Start a front-end and a worker of the no-op model; return them when they are ready."""
        front_end = self.front_end()
        # One process does nothing for several front-ends.
        worker = self.worker(model_directory(self.folder), processes=1)
        await self.until_served()
        return front_end, worker

    def echo(self) -> tuple[Process, str]:
        """Start the bare echo; return it with its address when it is ready."""
        address = f"127.0.0.1:{free_port()}"
        process = self.start(["-m", "tests.bench.echo", address], {})
        process.wait_for_line("serving")
        return process, address

    def bare_server(self, engine: str, threads: int) -> tuple[Process, str]:
        """Start a bare server of the bundled model; return it with its address when it is ready."""
        address = f"127.0.0.1:{free_port()}"
        process = self.start(["-m", "tests.bench.bare_server", engine, str(threads), address], {})
        process.wait_for_line("serving", READY_S)
        return process, address

    async def until_served(self, workers: int = 1, model: str = MODEL) -> None:
        """Wait until the front-end knows that many workers, and has had an answer."""
        self.model = model
        for process in self._starting:
            process.wait_for_line("serving|worker ready", READY_S)
        # Their logs grow, and need not be read again.
        self._starting.clear()
        await self.until_ready(workers, READY_S)

    async def check_answers(self, address: str, model: str = "", size: int = 10_000) -> None:
        """Ask the no-op model different things at once, and compare each answer.

        Raises:
            LoadFailed: an answer is not the answer to its payload.
        """
        options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            images = [payload(size, seed) for seed in range(SAMPLES)]
            answers = await asyncio.gather(
                *(stub.Predict(request(image, model), timeout=30) for image in images)
            )
        for image, answer in zip(images, answers, strict=True):
            if [each.class_id for each in answer.predictions] != [answer_to(image)]:
                raise LoadFailed("an answer is not the answer to its payload")

    def last_words(self) -> str:
        """Return the end of each log, without the calls that went well."""
        parts = []
        for path in sorted(self.folder.glob("process-*.log")):
            with path.open(errors="replace") as lines:
                last = deque((line for line in lines if '"OK"' not in line), LAST_WORDS_LINES)
            parts.append(f"--- {path.name}\n{''.join(last)}")
        return "\n".join(parts)
