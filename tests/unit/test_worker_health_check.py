"""What Docker asks in the container of a worker, and what it takes for healthy."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).parents[2] / "worker" / "Dockerfile"


class Container:
    """The files that the check looks at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ready_file = folder / "ready"
        self.processes("S", "R")

    def processes(self, *states: str) -> None:
        """Have processes in these states, an init first."""
        shutil.rmtree(self._folder / "proc", ignore_errors=True)
        for number, state in enumerate(states, 1):
            (self._folder / "proc" / str(number)).mkdir(parents=True)
            status = self._folder / "proc" / str(number) / "status"
            status.write_text(f"Name:\tpython\nState:\t{state} (of some kind)\nThreads:\t9\n")

    def is_healthy(self) -> bool:
        """Run the check of the image on these files."""
        found = re.search(r"HEALTHCHECK[^\n]*\\\n\s*CMD (\[.*\])", DOCKERFILE.read_text())
        assert found is not None
        *shell, command = json.loads(found[1])
        assert "/proc/" in command
        command = command.replace("/proc/", f"{self._folder}/proc/")
        environment = {**os.environ, "WORKER_READY_FILE": str(self.ready_file)}
        return subprocess.run([*shell, command], env=environment, check=False).returncode == 0


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_a_worker_is_healthy_once_it_takes_jobs_and_as_long_as_it_does(
    container: Container,
) -> None:
    assert not container.is_healthy()
    container.ready_file.touch()
    assert container.is_healthy()
    container.ready_file.unlink()
    assert not container.is_healthy()


@pytest.mark.parametrize("state", ["T", "t"])
def test_a_stopped_process_behind_the_init_is_seen(container: Container, state: str) -> None:
    container.ready_file.touch()
    container.processes("S", "S", state)
    assert not container.is_healthy()
    container.processes("S", "D", "Z")
    assert container.is_healthy()
