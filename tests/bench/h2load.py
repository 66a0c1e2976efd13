"""Drives unary calls with h2load, which takes less of the processors than any client in Python.

h2load does not look at trailers, where gRPC has its status: whoever uses this has to check
from elsewhere that the calls succeeded. The bytes that came back are a part of that.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

METHOD: Final = "prediction.v1.PredictionService/Predict"
GRPC_HEADERS: Final = ("content-type: application/grpc", "te: trailers")
CONNECTIONS: Final = 4
INSTALL: Final = {
    "darwin": "brew install nghttp2",
    "linux": "apt-get install nghttp2-client (Debian, Ubuntu), dnf install nghttp2 (Fedora)",
}
LIMIT_S: Final = 300


class LoadFailed(Exception):
    """The load was not answered as it should be, so its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of a server."""

    path: str = METHOD
    """Without the slash in front."""

    headers: Sequence[str] = GRPC_HEADERS

    is_http1: bool = False
    """Whether it is asked in HTTP/1.1, where a connection carries one call at a time."""


PREDICT: Final = Target()
"""Our own method."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the calls took."""

    requests: int
    seconds: float
    latencies_ms: Sequence[float]
    """Of each call, ascending."""

    data_bytes: int | None
    """Of the responses' bodies, all together; None: nobody counted, as each was read."""


def missing(platform: str = sys.platform) -> str:
    """Say how to install it; empty: it is there."""
    if shutil.which("h2load"):
        return ""
    how = INSTALL.get(platform, "see https://nghttp2.org")
    return f"h2load is not installed, which makes the load: {how}"


def drive(
    address: str,
    body: Path,
    *,
    requests: int,
    concurrency: int,
    connections: int = CONNECTIONS,
    target: Target = PREDICT,
) -> Load:
    """Make calls until `requests` were answered.

    Args:
        address: host and port of a server without TLS.
        body: a file with what is posted; of a gRPC call as `payloads.write_body` writes it.
        requests: how many; at least `concurrency`.
        concurrency: calls in flight at any time.
        connections: how many carry them, evenly.
        target: what is asked.

    Raises:
        LoadFailed: not each call was answered with HTTP status 200.
    """
    clients = concurrency if target.is_http1 else min(connections, concurrency)
    log = body.with_suffix(".log")
    log.unlink(missing_ok=True)
    finished = subprocess.run(
        [
            *("h2load", "--threads=1", f"--requests={requests}", f"--clients={clients}"),
            f"--max-concurrent-streams={concurrency // clients}",
            *(f"--data={body}", f"--log-file={log}"),
            *(f"--header={header}" for header in target.headers),
            *(("--h1",) if target.is_http1 else ()),
            f"http://{address}/{target.path}",
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if finished.returncode:
        raise LoadFailed(finished.stdout + finished.stderr)
    return parsed(finished.stdout, log.read_text(), requests)


def parsed(output: str, log: str, requests: int) -> Load:
    """Read what h2load says and logs.

    Raises:
        LoadFailed: not each of `requests` calls was answered with HTTP status 200.
    """
    succeeded = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", output)
    took = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", output)
    data = re.search(r"\((\d+)\) data", output)
    if succeeded is None or took is None or data is None or int(succeeded[1]) != requests:
        raise LoadFailed(f"not all of {requests} calls were answered:\n{output}")
    # Start, status and duration of each request, the times in microseconds.
    records = [line.split() for line in log.splitlines()]
    if len(records) != requests or any(record[1] != "200" for record in records):
        raise LoadFailed("not each call has the status 200")
    starts = [int(record[0]) for record in records]
    ends = [int(record[0]) + int(record[2]) for record in records]
    return Load(
        requests=requests,
        # h2load's own time has two digits; the log has microseconds.
        seconds=(max(ends) - min(starts)) / 1e6,
        latencies_ms=sorted(int(record[2]) / 1000 for record in records),
        data_bytes=int(data[1]),
    )
