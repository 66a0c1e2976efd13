"""One engine, tried out in processes of its own, as many as a worker would have.

Whatever becomes of them (a crash in native code, a hang, no memory) is an outcome
here, and nothing else.
"""

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from worker.agreement import Agreement
from worker.engines.child import command
from worker.model_spec import ModelSpec

LOAD_LIMIT_S: Final = 120
"""How long an engine may take to load a model, and to run it on the photos."""

RUN_LIMIT_S: Final = 30
"""How long it may take for what should take a quarter of a second."""

CHUNK: Final = 65536


class TrialFailed(Exception):
    """The engine cannot be measured; the text says why, in one line."""


class Trial:
    """A context: inside, the processes run.

    Args:
        spec: the model, with the engine.
        processes: how many at the same time.
        threads: of each.
        cache_dir: where converted models are.
    """

    def __init__(self, spec: ModelSpec, *, processes: int, threads: int, cache_dir: Path) -> None:
        self._order = {
            "spec": spec.model_dump(mode="json"),
            "threads": threads,
            "cache_dir": str(cache_dir),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._count = processes
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit

    def __enter__(self) -> Self:
        """Start the processes; they load the model."""
        for _ in range(self._count):
            self._processes.append(
                subprocess.Popen(  # noqa: S603 - our own program
                    command("worker.tune.trial_process"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
                    bufsize=0,
                )
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        self._said.close()

    def load(self) -> Agreement | None:
        """Wait until the model is loaded; return how far its scores are from TensorFlow's.

        Raises:
            TrialFailed: it cannot be loaded.
        """
        (found, *_) = self._asked(self._order, "agreement", LOAD_LIMIT_S)
        return None if found is None else Agreement.model_validate(found)

    def images_per_s(self, batch_size: int, seconds: float) -> float:
        """Run all processes at the same time; return how many images they make together.

        Args:
            batch_size: of each run.
            seconds: how long; at least one batch is run.

        Raises:
            TrialFailed: it crashed, hangs, or the model raised.
        """
        order = {"batch_size": batch_size, "seconds": seconds}
        return float(sum(self._asked(order, "images_per_s", RUN_LIMIT_S)))

    def _asked(self, order: dict[str, Any], key: str, limit_s: float) -> list[Any]:
        line = json.dumps(order).encode() + b"\n"
        give_up_at = time.monotonic() + limit_s
        try:
            for process in self._processes:
                assert process.stdin is not None  # noqa: S101 - asked for above
                process.stdin.write(line)
        except BrokenPipeError:
            pass  # its answer says why, or its end
        return [self._answer(process, key, give_up_at) for process in self._processes]

    def _answer(self, process: subprocess.Popen[bytes], key: str, give_up_at: float) -> Any:
        assert process.stdout is not None  # noqa: S101 - asked for above
        said = b""
        while not said.endswith(b"\n"):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                raise TrialFailed("it took too long")
            chunk = os.read(process.stdout.fileno(), CHUNK)
            if not chunk:
                raise TrialFailed(f"it crashed: {self._end_of(process)}")
            said += chunk
        answer = json.loads(said)
        if "error" in answer:
            raise TrialFailed(answer["error"])
        return answer[key]

    def _end_of(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1]}" if lines else "")
