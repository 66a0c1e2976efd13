"""Keeps what was measured in the cache, for one model on one kind of machine.

    <cache>/<model>-engines-<digest>.json
    <cache>/<model>-engines-<digest>.lock    held by the process that measures

The digest is of the model, the versions of all engines, the processor and the number
of cores: when one of them changes, all is measured anew.
"""

import hashlib
import os
import platform
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from worker.engines.conversion import digest
from worker.machine import usable_cores
from worker.model_spec import ModelSpec
from worker.tune.table import Table

log = structlog.get_logger()

FORMAT: Final = 1
"""Raised when what is measured, or how, changes its meaning."""

CPU_INFO: Final = Path("/proc/cpuinfo")


def path_of(spec: ModelSpec, cache_dir: Path) -> Path:
    """Return where the table of a model is, on this machine.

    Raises:
        ModelUnreadable: it cannot be read.
    """
    of = hashlib.sha256(digest(spec, "litert", "openvino").encode())
    of.update(f"{FORMAT} {usable_cores()} {processor()}".encode())
    return cache_dir / f"{spec.name}-engines-{of.hexdigest()[:16]}.json"


def read(path: Path) -> Table:
    """Return the table; an empty one if it is not there, or damaged."""
    try:
        return Table.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Table()
    except (OSError, ValidationError) as error:
        log.warning(
            "damaged in the cache; measured again", path=str(path), error=type(error).__name__
        )
        return Table()


def written_at(path: Path) -> int | None:
    """Return what changes whenever the table is written; None: it never was."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def write(path: Path, table: Table) -> None:
    """Keep the table; whoever reads meanwhile sees the old one or the new one.

    Raises:
        OSError: the cache cannot be written.
    """
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(table.model_dump_json(indent=1), encoding="utf-8")
    partial.replace(path)


def processor() -> str:
    """Return what tells processors apart: the name, and what it can compute with."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    first = {line.partition("\t")[0]: line for line in reversed(lines) if line.startswith(wanted)}
    return platform.machine() + "".join(first[name] for name in sorted(first))
