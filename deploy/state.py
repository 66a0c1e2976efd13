"""The folder that remembers what was started: `.despacho` of the checkout.

mode          `local` or `docker`, from the start until `make down`
plan.json     what runs locally: addresses, number of workers, settings
docker.json   settings of the containers, from the start until `make down`
supervisord.conf, supervisor.sock, supervisord.log
logs/         one file per service, rotated
redis/        the append-only file: outlives `make down`
lock          held by the command that changes something
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.errors import StackError

ROOT: Final = Path(__file__).resolve().parent.parent

# A socket's name has at most 103 bytes on macOS, 107 on Linux, and supervisord
# first binds to a longer one, with a dot and its process id.
MAX_SOCKET_BYTES: Final = 90

# Not $TMPDIR: a command from a shell that has another would take what runs for left over.
SHORT_FOLDER: Final = "/tmp"  # noqa: S108 - below it we make a folder of our own, and check it


class State:
    """Where things are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mode = folder / "mode"
        self.plan = folder / "plan.json"
        self.docker = folder / "docker.json"
        self.configuration = folder / "supervisord.conf"
        self.supervisor_log = folder / "supervisord.log"
        self.logs = folder / "logs"
        self.redis = folder / "redis"

    @classmethod
    def of_environment(cls) -> "State":
        """Return that of DESPACHO_STATE, else that of the checkout."""
        return cls(Path(os.environ.get("DESPACHO_STATE") or ROOT / ".despacho").resolve())

    def make_folders(self) -> None:
        """Make what is missing; for nobody else, since settings may have passwords."""
        for folder in (self.folder, self.logs, self.redis, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(self.socket.parent)

    @property
    def socket(self) -> Path:
        """Where supervisord listens: in the folder, if its name is short enough."""
        path = self.folder / "supervisor.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(SHORT_FOLDER, f"despacho-{os.getuid()}", f"{name}.sock")

    def recorded_mode(self) -> str | None:
        """Return how it was started; None: it was not, or it was stopped."""
        try:
            return self.mode.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command at a time change what runs."""
        self.make_folders()
        with (self.folder / "lock").open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Another command is at work; waiting for it.", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; if that fails, the one before stays."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def check_private(folder: Path) -> None:
    """Refuse a folder in which others could have put a socket of theirs.

    Raises:
        StackError: it is not ours alone.
    """
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StackError(f"{folder} can be written by others; remove it, or make it private")
