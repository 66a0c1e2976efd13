"""The real system for one row, with every part within reach of a fault."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from deploy.address import free_port
from dispatch import keys
from prediction.v1 import prediction_pb2_grpc
from tests.chaos.books import Books, audit
from tests.chaos.crowd import Call, Crowd
from tests.chaos.proxy import Proxy
from tests.chaos.submitters import Submitters
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.whole_stack import WholeStack

LEASE_S: Final = 3.0
NOTICED_S: Final = 5.0
"""A dead worker is noticed within this, as docs/architecture.md promises."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    is_quick: bool = False
    broken: str = ""


@dataclass(frozen=True, slots=True)
class ChaosWorker:
    """A worker with a gate."""

    process: Process
    stage: str
    fifo: Path

    async def reached(self, timeout_s: float = 30) -> None:
        """Wait until it stands at its gate."""
        await asyncio.to_thread(
            self.process.wait_for_line, f"reached {self.stage}", timeout_s=timeout_s
        )

    def release(self) -> None:
        """Let it go on from its gate."""
        with self.fifo.open("wb") as gate:
            gate.write(b"go")

    async def kill(self) -> None:
        """End it with SIGKILL."""
        await asyncio.to_thread(self.process.kill)


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """A front-end process."""

    process: Process
    address: str

    def rss_bytes(self) -> int:
        """Return how much memory it has now."""
        return rss_bytes(self.process.pid)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process, bytes."""
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) * 1024


class Rig(WholeStack):
    """Starts the parts, remembers the callers and the moment of the fault."""

    def __init__(self, redis: RedisServer, folder: Path, options: Options) -> None:
        super().__init__(redis, folder)
        self.options = options
        self.injected = ""
        self.recovery_s: float | None = None
        self.failures: list[str] = []
        self.is_exact = True
        """Whether each completed job has a caller who stays for the answer."""

        self.crowd_type: type[Crowd] = Crowd
        """What callers ask, and how they know their answer."""

        self._folder = folder
        self._crowds: list[Crowd] = []
        self._proxies = ExitStack()
        self._faulted_at: float | None = None

    async def close(self) -> None:
        """End everything but Redis."""
        await super().close()
        self._proxies.close()

    def front_end(self, *, url: str = "", address: str = "", **settings: object) -> FrontEnd:
        """Start a front-end; `crowd` and `until_ready` mean the one started last."""
        self.address = address or f"127.0.0.1:{free_port()}"
        environment = {
            "REDIS_URL": url or self.redis.url,
            "SERVER_ADDRESS": self.address,
            "SERVER_LOG_LEVEL": "WARNING",
            **{f"SERVER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        return FrontEnd(self.start(["-m", "server"], environment), self.address)

    def worker(
        self,
        *,
        inference_ms: float = 10,
        batch: int = 8,
        stop_at: str = "",
        passes: int = 0,
        url: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> ChaosWorker:
        """Start a worker that stops at a stage, after passing it some times; '': nowhere."""
        fifo = self._folder / f"gate-{len(self._processes)}"
        os.mkfifo(fifo)
        gate = ["--stop-at", stop_at, "--gate", str(fifo), "--pass", str(passes)]
        process = self.start(
            [
                *("-m", "tests.chaos.worker", url or self.redis.url, str(self.journal)),
                *("--inference-ms", str(inference_ms), "--batch", str(batch)),
                *(gate if stop_at else ()),
                *(("--break", self.options.broken) if self.options.broken else ()),
            ],
            dict(environment or {}),
        )
        return ChaosWorker(process, stop_at, fifo)

    def proxy(self) -> Proxy:
        """Start a way to Redis that can be disturbed."""
        return self._proxies.enter_context(Proxy(self.redis.port))

    def crowd(self, *, honest: Collection[str] = ()) -> Crowd:
        """Return callers of the front-end started last; see `Crowd` for `honest`."""
        crowd = self.crowd_type(self.stub(), honest=honest)
        self._crowds.append(crowd)
        return crowd

    def submitters(self) -> Submitters:
        """Return callers who submit at the front-end started last."""
        submitters = Submitters(self.stub())
        self._crowds.append(submitters)
        return submitters

    def stub_with(
        self, options: list[tuple[str, int]]
    ) -> "prediction_pb2_grpc.PredictionServiceAsyncStub":
        """Return the service over a channel of a special kind."""
        channel = grpc.aio.insecure_channel(
            self.address, options=[("grpc.enable_retries", 0), *options]
        )
        self._channels.append(channel)
        return prediction_pb2_grpc.PredictionServiceStub(channel)

    def inject(self, what: str, *, recovers: bool = True) -> None:
        """Note that a fault happens now, or ends now if it lasts: recovery counts from here.

        Args:
            what: for the table.
            recovers: whether it holds up anybody, so that there is a recovery to measure.
        """
        self.injected = what
        self._faulted_at = time.monotonic() if recovers else None

    def expect(self, condition: object, otherwise: str) -> None:
        """Note a failure unless `condition` holds."""
        if not condition:
            self.failures.append(otherwise)

    def waited(self) -> list[Call]:
        """Return the calls that were waiting at the moment of the fault."""
        moment = self._faulted_at
        return [
            call
            for crowd in self._crowds
            for call in crowd.calls
            if moment is not None
            and call.began <= moment
            and (call.ended is None or call.ended > moment)
        ]

    async def books(self) -> Books:
        """Ask one more question, audit, and measure how long recovery took."""
        last = self.crowd()
        await asyncio.wait_for(last.predict(), 60)
        books = await audit(self.redis, self.model, self._crowds, is_exact=self.is_exact)
        if self._faulted_at is not None:
            ends = [call.ended for call in self.waited() if call.ended is not None]
            self.recovery_s = max(ends, default=self._faulted_at) - self._faulted_at
        return books

    def logs(self, lines: int = 15) -> str:
        """Return the last words of each process."""
        return "\n".join(
            f"--- process {number}\n" + "".join(process.log.splitlines(keepends=True)[-lines:])
            for number, process in enumerate(self._processes)
        )

    @staticmethod
    def stall(worker: ChaosWorker) -> None:
        """Suspend a process without ending it."""
        worker.process.send(signal.SIGSTOP)

    @staticmethod
    def resume(worker: ChaosWorker) -> None:
        """Let a suspended process go on."""
        worker.process.send(signal.SIGCONT)

    def in_hand(self) -> int:
        """Return how many jobs workers have claimed."""
        with self.redis.client() as client:
            return sum(
                int(client.xpending(stream, keys.GROUP)["pending"])
                for stream in keys.job_streams(self.model)
            )
