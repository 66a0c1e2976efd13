"""What the gRPC face needs from the dispatch side; `relay.py` and `fleet.py` provide it.

Here and not there, so that the services can be read, typed and tested without
anything that knows Redis.
"""

from collections.abc import Sequence
from typing import Protocol

from despacho.job.v1 import job_pb2
from dispatch.jobs import Priority


class Relay(Protocol):
    """Sends a job to the workers and waits for its reply."""

    async def predict(
        self, job: job_pb2.Job, image: bytes, *, priority: Priority, timeout_s: float
    ) -> job_pb2.Reply:
        """Return the reply to `job`, with its `answer` set.

        Cancelling the wait cancels the job.

        Args:
            job: all but `id` and `reply_to`, which the relay fills in.
            image: the encoded image.
            priority: how soon it matters.
            timeout_s: remaining time of the caller, seconds; the relay answers
                a little earlier.

        Raises:
            DespachoError: there is no answer; the class says why.
        """
        ...

    def give_up(self) -> None:
        """Fail all calls that still wait: this server stops now."""
        ...


class ModelView(Protocol):
    """One model as the fleet sees it now."""

    @property
    def card(self) -> job_pb2.ModelCard:
        """What its workers announced last."""
        ...

    @property
    def ready_workers(self) -> int:
        """Workers that take jobs."""
        ...

    @property
    def loading_workers(self) -> int:
        """Workers that do not take jobs yet."""
        ...

    @property
    def live_versions(self) -> tuple[str, ...]:
        """Versions that ready workers serve, sorted."""
        ...

    @property
    def queue_depth(self) -> int:
        """Jobs accepted and not yet retired, over all servers."""
        ...

    @property
    def drain_per_s(self) -> float | None:
        """Jobs retired per second; None if there is no measurement."""
        ...


class Fleet(Protocol):
    """Which models are served, and by how many workers."""

    def resolve(self, name: str) -> str:
        """Return the model to use for the name in a request, which may be empty.

        Raises:
            ModelNotFound: nobody ever served it.
            InvalidArgument: the name is empty and there is no default.
            BrokerUnavailable: Redis was not reached yet.
        """
        ...

    def models(self) -> Sequence[ModelView]:
        """Return every model known, sorted by name."""
        ...

    def get(self, name: str) -> ModelView:
        """Return one model.

        Raises:
            ModelNotFound: nobody ever served it.
        """
        ...

    @property
    def is_connected(self) -> bool:
        """Whether Redis can be reached now."""
        ...

    async def changed(self) -> None:
        """Wait until the view or `is_connected` has changed."""
        ...
