"""What both ways of running the services can do."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from deploy.state import ROOT

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
"""Where the front-end listens unless SERVER_ADDRESS says otherwise."""

DEFAULT_GATEWAY_ADDRESS: Final = "127.0.0.1:8080"
"""Where the gateway listens unless GATEWAY_ADDRESS says otherwise."""

SETTINGS: Final = ("SERVER_", "WORKER_", "GATEWAY_", "OTEL_")
"""Begin the names of variables that are for the services."""

REDIS_CONFIGURATION: Final = ROOT / "deploy" / "redis" / "redis.conf"

BUNDLED_MODEL: Final = "efficientnet-lite0"
APPLICATION_PREFIX: Final = "keras-applications:"


def default_model(environment: Mapping[str, str], *, has_our_files: bool) -> dict[str, str]:
    """Return the setting by which requests that name no model mean the one that is started.

    Without it they would be ambiguous while a worker of another model is there, or was a moment
    ago. Nothing if the user decides, or if the name of that model cannot be known.

    Args:
        environment: says which model workers are to serve.
        has_our_files: whether a path in it is one of this machine, not of a container.
    """
    if environment.get("SERVER_DEFAULT_MODEL"):
        return {}
    name = _name_of(environment.get("WORKER_MODEL") or BUNDLED_MODEL, has_our_files=has_our_files)
    return {"SERVER_DEFAULT_MODEL": name} if name else {}


def _name_of(model: str, *, has_our_files: bool) -> str | None:
    """Return the name of what `WORKER_MODEL` says; None: unknown, or no model."""
    if model == BUNDLED_MODEL:
        return model
    if model.startswith(APPLICATION_PREFIX):
        return model.removeprefix(APPLICATION_PREFIX).lower()
    if not has_our_files:
        return None
    try:
        # Whatever is wrong with it, the worker says in its own words.
        path = ROOT / Path(model).expanduser() / "model.toml"
        # As the worker reads it: editors of Windows put a mark in front.
        name = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("name")
    except (OSError, ValueError, RuntimeError):
        return None
    return name if isinstance(name, str) else None


class Stack(Protocol):
    """The running services, or those that could be running. Prints what it does."""

    def up(self, workers: int | None) -> None:
        """Start what is not running, and wait for a real prediction.

        Leaves nothing running that it started if that fails.

        Args:
            workers: how many; None: as many as are running, at least one.

        Raises:
            StackError: it does not work.
        """

    def down(self) -> None:
        """Stop everything. Harmless when nothing runs."""

    def scale(self, workers: int) -> None:
        """Start or stop workers until there are as many; the others go on.

        Raises:
            StackError: it is not running, or a worker does not start.
        """

    def worker(self, model: str) -> None:
        """Become one more worker, of another model, until interrupted.

        Args:
            model: what `WORKER_MODEL` takes.

        Raises:
            StackError: it is not running.
        """

    def status(self) -> bool:
        """Print processes, addresses and health; return whether it can answer."""

    def logs(self, service: str | None) -> None:
        """Follow the log of one service, or of all, until interrupted.

        Raises:
            StackError: there is no such service.
        """

    def address(self) -> str:
        """Return where a client of this machine finds the front-end.

        Raises:
            StackError: it is not running.
        """
