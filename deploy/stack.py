"""What both ways of running the services can do."""

from collections.abc import Mapping
from typing import Final, Protocol

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
"""Where the front-end listens unless SERVER_ADDRESS says otherwise."""

DEFAULT_GATEWAY_ADDRESS: Final = "127.0.0.1:8080"
"""Where the gateway listens unless GATEWAY_ADDRESS says otherwise."""

BUNDLED_MODEL: Final = "efficientnet-lite0"


def default_model(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the setting by which requests that name no model keep their meaning.

    Without it they would be ambiguous as soon as a worker of another model joins.
    Nothing if the user decides: by the setting itself, or by another model to start.
    """
    if environment.get("SERVER_DEFAULT_MODEL") or environment.get("WORKER_MODEL"):
        return {}
    return {"SERVER_DEFAULT_MODEL": BUNDLED_MODEL}


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
