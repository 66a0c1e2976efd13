"""Environments of foreign programs, which pin other versions than we do.

Clients also register the protobuf package `inference` for themselves, so none of them
can share a process with our stubs.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CLIENTS: Final = ROOT / ".venv-clients"
INSTALL_LIMIT_S: Final = 600


class CannotInstall(Exception):
    """The package index did not give what is pinned."""


def python_of(requirements: Path, folder: Path = CLIENTS) -> Path:
    """Return the Python of an environment with these packages; made if it is missing or stale.

    Args:
        requirements: a file with all of them, each pinned.
        folder: where it is made, under the file's name.

    Raises:
        CannotInstall: pip failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / requirements.stem
    with (folder / f"{requirements.stem}.lock").open("w") as lock:
        # Tests of several files may want the same one, in processes of their own.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(requirements, place)


def _made(requirements: Path, place: Path) -> Path:
    python = place / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    # Written last, so that an environment that was cut off is made again.
    stamp = place / "installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    # A link: a copy could still be open for writing in a child that another thread just forked.
    venv.create(place, symlinks=True, with_pip=True)
    ended = subprocess.run(
        [
            *(str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--no-deps", "-r", str(requirements)),
        ],
        capture_output=True,
        text=True,
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    if ended.returncode != 0:
        raise CannotInstall(f"{requirements.name}:\n{ended.stderr}")
    stamp.write_text(wanted)
    return python
