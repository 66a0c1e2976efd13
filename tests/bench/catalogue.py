"""All scenarios, in the order of the report."""

from importlib import import_module
from typing import Final

from tests.bench.scenarios import SCENARIOS

__all__ = ["SCENARIOS"]

MODULES: Final = ("relay", "model", "peers", "apart", "bare", "photo", "system", "memory", "start")
for _module in MODULES:
    # Each puts its scenarios on the list.
    import_module(f"tests.bench.scenario_{_module}")
