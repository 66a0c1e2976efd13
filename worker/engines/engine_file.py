"""A file that LiteRT or OpenVINO runs as it is.

Both read it again for each size of batch, and may map it instead of reading it: whatever replaces
it meanwhile would change the answers of a model that runs, or end the process.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.model_spec import ModelError, ModelUnreadable

_CONSTANT: Final = b'type="Const"'
"""In an OpenVINO model that has weights; one without needs no file of them."""


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A file for one engine alone, mapped or in memory."""

    path: Path

    content: bytes | None = None
    """None: it is in the cache, where no file ever changes, and is best mapped: all processes share
    what they read of it."""

    weights: npt.NDArray[Any] | None = None
    """Bytes of the file beside an OpenVINO model, if there is `content`; whoever runs the model has
    to keep them, as OpenVINO does not copy them."""


def read_whole(path: Path) -> EngineFile:
    """Return somebody's own file, read once.

    Raises:
        ModelUnreadable: it cannot be read.
        ModelError: it is empty, or its weights are not there.
    """
    try:
        content = path.read_bytes()
        weights = _weights_beside(path, content)
    except OSError as error:
        raise ModelUnreadable(path, error) from error
    if not content:
        raise ModelError(f"{path}: cannot be loaded: it is empty")
    return EngineFile(path, content, weights)


def _weights_beside(path: Path, content: bytes) -> npt.NDArray[Any]:
    beside = path.with_suffix(".bin")
    if path.suffix == ".xml" and beside.exists():
        return np.fromfile(beside, np.uint8)
    if path.suffix == ".xml" and _CONSTANT in content:
        raise ModelError(f"{path}: there is no {beside.name} beside it, with its weights")
    return np.empty(0, np.uint8)
