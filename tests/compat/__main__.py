"""Try all foreign clients and write the table of docs/compatibility.md.

    python -m tests.compat

Exits with 1 when something failed.
"""

import sys
import tempfile
from pathlib import Path

from tests.compat import table
from tests.compat.clients.cells import OK
from tests.compat.trial import CLIENTS, possible, tried


def main() -> int:
    """Run everything; return the exit code."""
    if len(possible()) < len(CLIENTS):
        sys.stderr.write("The table needs a Python for which all clients have packages.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        trials = tried(Path(folder))
    failures = [
        (name, feature, outcome)
        for name, trial in trials.items()
        for feature, outcome in trial.outcomes.items()
        if outcome != OK
    ]
    for name, feature, outcome in failures:
        sys.stderr.write(f"--- {name}: {feature}\n{outcome}\n")
    table.show(table.written(trials))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
