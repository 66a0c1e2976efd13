"""What the parent of several processes tells of those that serve."""

import os
import sys
from pathlib import Path

from supervision.supervisor import Supervisor
from worker.ready_file import ReadyFile

CHILD = """
import os
from supervision.lifeline import Lifeline

line = Lifeline.inherited()
assert line is not None
line.say_ready()
os._exit(3)
"""


def test_nothing_is_ready_while_all_processes_are_dead(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    file = ReadyFile(str(path))
    seen: list[bool] = []

    def make() -> None:
        file.make()
        seen.append(path.exists())

    def remove() -> None:
        file.remove()
        seen.append(path.exists())
        if len(seen) == 4:
            supervisor.stop()

    supervisor = Supervisor(
        [sys.executable, "-c", CHILD],
        count=1,
        environment=os.environ,
        start_timeout_s=60,
        stop_timeout_s=60,
        on_serving=make,
        on_none_serving=remove,
    )
    supervisor.run()
    assert seen == [True, False, True, False]
