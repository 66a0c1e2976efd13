"""Says whether anything runs as local processes: exit code 0 if so.

For `make clean`, also in a `.venv` that lacks packages: the standard library has to do.
"""

import sys

from deploy.local import leftovers
from deploy.local.supervisor import Supervisor
from deploy.state import State


def is_running(state: State) -> bool:
    """Return whether there is a supervisor, or what one has left over."""
    return Supervisor(state.socket).is_running() or bool(leftovers.marked(state.folder))


if __name__ == "__main__":
    sys.exit(0 if is_running(State.of_environment()) else 1)
