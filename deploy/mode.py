"""Docker or local processes: which, and why."""

import shutil
import subprocess
from dataclasses import dataclass
from typing import Final, Literal

from deploy.errors import StackError

Mode = Literal["local", "docker"]

ANSWER_S: Final = 20
"""How long the engine may take to answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A mode and the reason for it."""

    mode: Mode
    reason: str


def choose(forced: str, recorded: str | None) -> Choice:
    """Choose how to run the services.

    Args:
        forced: what the user wants; empty: no wish.
        recorded: how they run now; None: they do not.

    Raises:
        StackError: there is no such mode.
    """
    if forced:
        return Choice(_checked(forced), "as MODE says")
    if recorded is not None:
        return Choice(_checked(recorded), "as it was started")
    missing = missing_for_docker()
    if missing:
        return Choice("local", f"{missing}; MODE=docker would insist")
    return Choice("docker", "a Docker engine answers; MODE=local forces local processes")


def missing_for_docker() -> str:
    """Say what is not there for Docker; empty: all is there."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    if not _succeeds("docker", "info"):
        return "no Docker engine answers"
    if compose_command() is None:
        return "there is no docker compose, and no docker-compose"
    return ""


def compose_command() -> list[str] | None:
    """Return how to call compose: the plugin, else the old program; None: neither."""
    if _succeeds("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is not None:
        return ["docker-compose"]
    return None


def _checked(mode: str) -> Mode:
    if mode == "local":
        return "local"
    if mode == "docker":
        return "docker"
    raise StackError(f"MODE is {mode!r}; it can be local or docker")


def _succeeds(*command: str) -> bool:
    try:
        finished = subprocess.run(
            command,
            check=False,
            timeout=ANSWER_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0
