"""Which engines are installed, without importing them."""

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Final

from worker.model_spec import ModelError

PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "litert": ("ai-edge-litert",),
    "openvino": ("openvino",),
}
"""By engine, the packages of which one brings it."""


@cache
def version_of(engine: str) -> str | None:
    """Return the version of an engine, or of another package; None: it is not installed."""
    for package in PACKAGES.get(engine, (engine,)):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def require(engine: str) -> None:
    """Check that an engine is installed.

    Raises:
        ModelError: it is not.
    """
    if version_of(engine) is None:
        raise ModelError(
            f"the engine {engine} is not installed: install the package {PACKAGES[engine][0]}"
            " (`make install-engines` in a checkout)"
        )
