"""Decode and infer in processes without a server, as a load like any other."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.bench.h2load import Load, LoadFailed
from tests.bench.loads import to_run
from tests.bench.results import Run
from tests.bench.usage import Meter
from tests.processes import ROOT

BATCHES: Final = (1, 4, 16)
TRIAL_S: Final = 1.2
WARM_UP_S: Final = 0.3
END_S: Final = 20.0


class Pool:
    """Some processes with the same engine; entered, they have loaded the model.

    Args:
        engine: by its name.
        processes: how many.
        threads: of each.
        photo: what they decode.
    """

    def __init__(self, engine: str, *, processes: int, threads: int, photo: Path) -> None:
        self.engine = engine
        self.processes = processes
        self.threads = threads
        self._photo = photo
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Start them, one after the other, as the first may have to prepare the model."""
        command = [sys.executable, "-m", "tests.bench.in_process"]
        for _ in range(self.processes):
            process = subprocess.Popen(
                [*command, self.engine, str(self.threads), str(self._photo)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._started.append(process)
            if answer(process) != "ready":
                raise LoadFailed(f"{self.engine} does not load in process")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End them."""
        for process in self._started:
            process.kill()
            process.communicate(timeout=END_S)

    def measured(
        self, seconds: float, batch: int, *, processes: int = 0
    ) -> tuple[Load, Meter, int]:
        """Let some of them work at the same time.

        Args:
            seconds: how long.
            batch: images in one inference.
            processes: how many; 0: all.

        Returns:
            What all of them did, what they took, and the class that they found.
        """
        working = self._started[: processes or None]
        with Meter({"in process": [process.pid for process in working]}) as meter:
            for process in working:
                assert process.stdin is not None
                process.stdin.write(f"{seconds} {batch}\n")
                process.stdin.flush()
            found = [json.loads(answer(process)) for process in working]
        (best,) = {each["best"] for each in found}
        images = sum(each["images"] for each in found)
        # Each ends with its own last batch, so each has a rate of its own.
        rate = sum(each["images"] / each["seconds"] for each in found)
        latencies = sorted(latency for each in found for latency in each["latencies_ms"])
        return Load(images, images / rate, latencies, data_bytes=None), meter, best


def answer(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process; empty: it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@dataclass(slots=True)
class InProcess:
    """A pool's work, of one kind."""

    pool: Pool
    label: str
    batch: int
    processes: int = 0
    """0: all of the pool."""

    best: int = field(default=-1, init=False)
    """The class that was found last."""

    @property
    def side(self) -> str:
        """Who it is, for the table."""
        count = self.processes or self.pool.processes
        threads = f"{self.pool.threads} thread" + ("s" if self.pool.threads > 1 else "")
        return f"in process: {count} x {threads}, batch {self.batch}"

    def warm_up(self) -> None:
        """Let the engine choose its algorithms."""
        self.pool.measured(WARM_UP_S, self.batch, processes=self.processes)

    def run(self, number: int, seconds: float) -> Run:
        """Work for so long."""
        load, meter, self.best = self.pool.measured(seconds, self.batch, processes=self.processes)
        return to_run(
            load,
            meter,
            label=self.label,
            side=self.side,
            number=number,
            concurrency=self.batch * (self.processes or self.pool.processes),
        )


def trials(pools: Sequence[Pool]) -> dict[tuple[int, int], float]:
    """Return images per second, by the index of the pool and the size of the batch.

    Each is tried twice, forwards and backwards, so that a moment of disturbance does not make the
    limit a lower one.
    """
    kinds = [(index, batch) for index in range(len(pools)) for batch in BATCHES]
    found = dict.fromkeys(kinds, 0.0)
    for index, batch in kinds + kinds[::-1]:
        pools[index].measured(WARM_UP_S, batch)
        load, _, _ = pools[index].measured(TRIAL_S, batch)
        found[index, batch] = max(found[index, batch], load.requests / load.seconds)
    return found


def quickest_alone(pools: Sequence[Pool], label: str) -> InProcess:
    """Return the work of one image after the other, in one process of the pool that is quickest.

    Each is tried twice, as in `trials`.
    """
    found = [float("inf")] * len(pools)
    kinds = list(range(len(pools)))
    for index in kinds + kinds[::-1]:
        pools[index].measured(WARM_UP_S, 1, processes=1)
        load, _, _ = pools[index].measured(TRIAL_S, 1, processes=1)
        found[index] = min(found[index], load.seconds / load.requests)
    return InProcess(pools[found.index(min(found))], label, batch=1, processes=1)
