"""Where, and with which version, something is measured."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from tests.bench.results import Machine
from tests.processes import ROOT
from tests.redis_server import RedisServer

PACKAGES: Final = (
    "grpcio",
    "protobuf",
    "uvloop",
    "redis",
    "hiredis",
    "numpy",
    "pillow",
    "tensorflow",
    "ai-edge-litert",
    "openvino",
)


def machine(redis: str) -> Machine:
    """Return what this machine is.

    Args:
        redis: the server's name and version.
    """
    return Machine(
        processor=_processor(),
        cores=psutil.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        redis=redis,
    )


def redis_version(server: RedisServer) -> str:
    """Return what a server that runs calls itself."""
    with server.client() as client:
        info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def commit() -> tuple[str, bool]:
    """Return the commit of the checkout, and whether there are changes that it does not have."""
    name = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    # What the benchmark itself writes is no change of what it measures.
    changed = _git("status", "--porcelain", "--", ".", ":!docs")
    return name, bool(changed)


def _git(*arguments: str) -> str:
    finished = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return finished.stdout.strip()


def _processor() -> str:
    if sys.platform == "darwin":
        shown = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        return shown.stdout.strip()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
