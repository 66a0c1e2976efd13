"""The figures of several processes as one: each writes its own into a file, their parent adds up.

Every second a process replaces its file, so that nothing on the way of an image waits for a disk or
for another process. What a process has counted stays in the sums when it ends; what is only true
while it lives, its gauges, does not. One that is killed takes what it counted in its last second
along.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import structlog

from telemetry.metrics_instruments import Instrument, Readings

PERIOD_S: Final = 1.0

STALE_S: Final = 5.0
"""A process that has not written for so long is gone, or as good as."""

FORGOTTEN_S: Final = 60.0
"""After this its file is taken into the memory of the parent, so that files do not pile up."""

SUFFIX: Final = ".json"

log = structlog.get_logger(__name__)


@contextmanager
def written(folder: Path, instruments: Sequence[Instrument]) -> Iterator[None]:
    """Write the figures of this process every second while inside, and once more at the end."""
    path = folder / f"{os.getpid()}-{uuid4().hex[:8]}{SUFFIX}"
    stop = threading.Event()

    def write() -> None:
        is_written = _write(path, instruments)
        while not stop.wait(PERIOD_S):
            # Told once, and tried again: there may be room on the disk later.
            is_written = _write(path, instruments, tell=is_written)

    thread = threading.Thread(target=write, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _write(path, instruments)


def _write(path: Path, instruments: Sequence[Instrument], *, tell: bool = True) -> bool:
    """Replace the file; return whether that went well.

    Args:
        path: the file.
        instruments: whose figures they are.
        tell: whether to log that it did not.
    """
    readings = {
        each.name: [[labels, list(values)] for labels, values in found.items()]
        for each in instruments
        if (found := each.read())
    }
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(readings), encoding="utf-8")
        fresh.replace(path)
    except FileNotFoundError:
        return True  # the parent is gone, and its folder with it
    except OSError as error:
        if tell:
            log.warning("metrics not written; trying again", error=str(error))
        return False
    return True


class Sums:
    """Adds up what the processes have written. For any thread."""

    def __init__(self, folder: Path, instruments: Sequence[Instrument]) -> None:
        """Read nothing yet.

        Args:
            folder: where they write.
            instruments: what they count.
        """
        self._folder = folder
        self._instruments = {each.name: each for each in instruments}
        self._of_the_gone: dict[str, Readings] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[str, Readings]:
        """Return the sums as they are now."""
        with self._lock:
            now = time.time()
            sums: dict[str, Readings] = {
                name: dict(found) for name, found in self._of_the_gone.items()
            }
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                age_s = now - path.stat().st_mtime
                readings = _parsed(path)
                self._add(sums, readings, is_alive=age_s < STALE_S)
                if age_s > FORGOTTEN_S and _has_ended(path):
                    self._add(self._of_the_gone, readings, is_alive=False)
                    path.unlink()
            return sums

    def _add(self, sums: dict[str, Readings], readings: dict[str, Any], *, is_alive: bool) -> None:
        for name, found in readings.items():
            instrument = self._instruments.get(name)
            # A child that was replaced after an update may count what its parent does not know.
            if instrument is None or (instrument.kind == "gauge" and not is_alive):
                continue
            of_name = sums.setdefault(name, {})
            for labels, values in found:
                key = tuple(labels)
                of_name[key] = instrument.merged(of_name.get(key), values)


def _parsed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _has_ended(path: Path) -> bool:
    try:
        os.kill(int(path.name.partition("-")[0]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's, who has got the number since: in time it ends, too
    return False
