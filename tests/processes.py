"""Starting real processes for tests, and waiting for what they say."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOOK_S = 0.01


class Process:
    """One of our programs, with its log kept and searchable."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        *,
        log_file: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        """Start it.

        Args:
            arguments: of the Python interpreter.
            environment: in addition to ours.
            log_file: where its log goes, so that this process need not keep up with it; None: it
                is kept here.
            python: the interpreter.
        """
        self._log_file = log_file
        with log_file.open("wb") if log_file else nullcontext(subprocess.PIPE) as log:
            self._process = subprocess.Popen(
                [python, *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                # Libraries log what came over the network as it is.
                errors="backslashreplace",
            )
        self._lines: list[str] = []
        self._grew = threading.Condition()
        self._is_closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self._process.stderr is None:
            self._process.wait()
        else:
            for line in self._process.stderr:
                with self._grew:
                    self._lines.append(line)
                    self._grew.notify_all()
        with self._grew:
            self._is_closed = True
            self._grew.notify_all()

    @property
    def log(self) -> str:
        """What it has written so far."""
        if self._log_file is not None:
            return self._log_file.read_text(errors="replace")
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def wait_for_line(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """Return the first match in its log; fail when it ends or takes too long."""
        limit = time.monotonic() + timeout_s
        with self._grew:
            while True:
                has_ended = self._is_closed
                if match := re.search(pattern, self.log):
                    return match
                remaining = limit - time.monotonic()
                if has_ended or remaining <= 0:
                    raise AssertionError(f"no {pattern!r} in the log:\n{self.log}")
                # Nobody tells us when a file grows.
                self._grew.wait(min(remaining, LOOK_S) if self._log_file else remaining)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self.wait()

    def terminate(self, timeout_s: float = 20) -> int:
        """Ask it to stop; return its exit code."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 20) -> int:
        """Wait for its end; return its exit code."""
        code = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code

    def clean_up(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
            self._process.kill()
        self.wait()
