"""Lets one of any number of processes download the weights of a model, while the others wait.

    <folder>/<name>.downloaded          there once they were
    <folder>/<name>.downloaded.lock     held by the process that downloads

Keras writes to the final name from the beginning: whoever came meanwhile would take a part of
the file for all of it, or truncate it.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import structlog

from worker.prepared_folder import locked

log = structlog.get_logger()

Model = TypeVar("Model")


def downloaded_once(folder: Path, name: str, build: Callable[[], Model]) -> Model:
    """Return what `build` makes; nobody else builds it until that was done once.

    Args:
        folder: created if need be. If it cannot be written, nobody waits: then what is there is
            all there will be.
        name: of what is downloaded, and of its version.
        build: downloads unless that was done. What it raises is raised, and the next one tries.
    """
    done = folder / f"{name}.downloaded"
    with ExitStack() as stack:
        if not done.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(done.with_name(f"{done.name}.lock")))
            except OSError as error:
                log.debug("downloads are not locked", folder=str(folder), error=str(error))
                return build()
        if done.exists():
            stack.close()  # somebody else downloaded while we waited; all may build at once
            return build()
        built = build()
        with suppress(OSError):  # then the next one waits for its turn, too
            done.touch()
        return built
