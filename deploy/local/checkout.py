"""When the code that the services run was last changed."""

import sys
from pathlib import Path
from typing import Final

from deploy.state import ROOT

PACKAGES: Final = (
    *("client", "dispatch", "gateway", "server", "supervision", "telemetry", "worker"),
    "protos/gen",
)

INSTALLED: Final = Path(sys.prefix, ".installed-run")
"""Written by `make` after it has installed what they need."""


def changed_at() -> float:
    """Return the time of the last change, Unix seconds; `git pull` is one, and so is an edit.

    Times of files say more than a revision would: there need not be a git, and services that
    are restarted one by one are compared one by one.
    """
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    # Python writes there what it has compiled, when it runs.
    code = [path for path in files if path.is_file() and "__pycache__" not in path.parts]
    return max(path.stat().st_mtime for path in [*code, INSTALLED] if path.exists())
