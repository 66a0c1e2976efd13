"""What the gRPC face needs from the dispatch side; `relay.py` and `fleet.py` provide it.

Here and not there, so that the services can be read, typed and tested without
anything that knows Redis.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from despacho.job.v1 import job_pb2
from dispatch.errors import DespachoError
from dispatch.jobs import Priority
from dispatch.letters import Letter, LetterPage
from dispatch.operations import Operation, OperationKey, OperationPage
from server.samples import Sample


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

    def flood(self) -> DespachoError | None:
        """Return why any call would be refused now, of whichever model; None if it may not be."""
        ...

    def give_up(self) -> None:
        """Fail all calls that still wait: this server stops now."""
        ...


class Operations(Protocol):
    """Accepts what is fetched later, and looks after it. `operations.py` says more."""

    async def submit(
        self,
        job: job_pb2.Job,
        image: bytes,
        *,
        caller: str,
        request_id: str,
        is_synced: bool,
        timeout_s: float,
    ) -> Operation:
        """Accept an operation, or find the one that the same request made."""
        ...

    async def find(self, operation_id: str, caller: str, *, timeout_s: float) -> OperationKey:
        """Return which operation of any model has this id."""
        ...

    async def get(self, key: OperationKey, *, timeout_s: float) -> Operation:
        """Return an operation as it is now."""
        ...

    async def wait(self, key: OperationKey, *, timeout_s: float) -> Operation:
        """Return an operation when it has ended, or as it is when the time is over."""
        ...

    async def page(
        self, model: str, caller: str, *, before: int, count: int, used_bytes: int, timeout_s: float
    ) -> OperationPage:
        """Return some of a caller's operations of a model, the newest first."""
        ...

    async def cancel(self, key: OperationKey, *, timeout_s: float) -> None:
        """End an operation, if it has not ended."""
        ...

    async def delete(self, key: OperationKey, *, timeout_s: float) -> None:
        """Forget an operation, and cancel it if it has not ended."""
        ...


class DeadLetters(Protocol):
    """What was set aside, and what is left of models; `dispatch/dead_letters.py` says more.

    Each may raise `BrokerUnavailable` or, with nothing known, `OutcomeUnknown`; all
    are harmless when repeated.
    """

    async def page(self, model: str, *, after: str, count: int) -> LetterPage:
        """Return letters of a model, the oldest first, without their images."""
        ...

    async def get(self, model: str, letter_id: str) -> Letter:
        """Return one letter with its image."""
        ...

    async def purge(self, model: str, letter_ids: Sequence[str]) -> int:
        """Delete letters; return how many there were."""
        ...

    async def clear(self, model: str) -> int:
        """Delete all letters of a model; return how many there were."""
        ...

    async def forget(self, model: str) -> bool:
        """Delete what is left of a model; return whether there was anything."""
        ...


class Stats(Protocol):
    """What the whole system does; `stats.py` says more."""

    def watched(self) -> AbstractContextManager[None]:
        """Look once a second while inside."""
        ...

    async def samples(self) -> Sequence[Sample]:
        """Return what was seen in the last seconds, oldest first; at least one.

        Raises:
            BrokerUnavailable: nothing was seen, as Redis cannot be reached.
        """
        ...

    async def news(self) -> None:
        """Wait for the next look; if Redis cannot be reached, only for two seconds."""
        ...


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model as the fleet sees it now."""

    card: job_pb2.ModelCard
    """That of the worker that became ready last, as long as it lives; then of another one."""

    ready_workers: int
    """Workers that take jobs."""

    loading_workers: int
    """Workers that do not take jobs yet."""

    live_versions: tuple[str, ...]
    """Versions that ready workers serve, sorted."""

    queue_depth: int
    """Calls accepted and not yet answered, over all servers."""

    queued_operations: int
    """Operations accepted and not yet ended, over all servers."""

    drain_per_s: float | None
    """Jobs that end per second, over the last seconds; None when none did."""


class Fleet(Protocol):
    """Which models are served, and by how many workers."""

    def resolve(self, name: str) -> str:
        """Return the model to use for the name in a request, which may be empty.

        Raises:
            ModelNotFound: nobody ever served it.
            InvalidArgument: the name is empty and there is no default.
            BrokerUnavailable: that cannot be known now.
        """
        ...

    def models(self) -> Sequence[ModelView]:
        """Return every model known, sorted by name, as it was seen last."""
        ...

    def listed(self) -> Sequence[ModelView]:
        """Return every model there is now, sorted by name.

        Raises:
            BrokerUnavailable: that cannot be known now.
        """
        ...

    def get(self, name: str) -> ModelView:
        """Return one model, as it was seen last.

        Raises:
            ModelNotFound: nobody ever served it.
            BrokerUnavailable: that cannot be known now.
        """
        ...

    @property
    def is_current(self) -> bool:
        """Whether Redis can be reached now, and the view is that of the last look."""
        ...

    async def changed(self) -> None:
        """Wait until the view or `is_current` has changed."""
        ...
