"""What a sound process never does: end, or complain in its log."""

import re
from typing import Final

from tests.processes import Process

COMPLAINT: Final = re.compile(
    r"Traceback|never retrieved|never awaited|Exception ignored|Fatal|unexpected error|"
    r"decoder failed|Segmentation"
)
"""What is never in the log of a sound process."""

GRPCS_OWN: Final = "ExecuteBatchError raised in core"
"""What gRPC logs, with a traceback, of a caller that vanishes while it is answered."""


def complaints(name: str, process: Process, fresh: str) -> list[str]:
    """Return that a process has ended, and the first of its complaints.

    Args:
        name: of the process, for people.
        process: it.
        fresh: what it has logged since one looked last.
    """
    found = []
    if (code := process.exit_code) is not None:
        found.append(f"{name} ended with {code}: {process.log[-1500:]}")
    for line in fresh.splitlines():
        if COMPLAINT.search(line) and GRPCS_OWN not in line:
            found.append(f"{name} complains: {line[:3000]}")
            break
    return found
