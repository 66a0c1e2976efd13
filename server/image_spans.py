"""A span for each image on its way through Redis, around what would send it anyway."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from despacho.job.v1 import job_pb2
from dispatch import keys
from dispatch.errors import DespachoError
from dispatch.jobs import Priority
from dispatch.operations import Operation
from server.operations import Operations
from server.ports import Relay
from server.status import reason_for
from telemetry.tracing import is_sampled

if TYPE_CHECKING:
    from telemetry.tracing_sdk import Span, Tracer


class TracedRelay:
    """A relay, each job of which has a span from here until its reply.

    The spans of the workers are its children: its context goes with the job.
    """

    def __init__(self, relay: Relay, tracer: "Tracer") -> None:
        self._relay = relay
        self._tracer = tracer

    async def predict(
        self, job: job_pb2.Job, image: bytes, *, priority: Priority, timeout_s: float
    ) -> job_pb2.Reply:
        """Return the reply to `job`.

        Raises:
            DespachoError: there is no answer; the class says why.
        """
        if not is_sampled(job.traceparent):
            return await self._relay.predict(job, image, priority=priority, timeout_s=timeout_s)
        with _sending(self._tracer, "predict", job, image, priority) as span:
            reply = await self._relay.predict(job, image, priority=priority, timeout_s=timeout_s)
            span.add(
                {
                    "messaging.message.id": reply.job_id,
                    "despacho.worker": reply.worker,
                    "despacho.attempt": reply.attempt,
                }
            )
            return reply

    def flood(self) -> DespachoError | None:
        """Return why any call would be refused now; None if it may not be."""
        return self._relay.flood()

    def give_up(self) -> None:
        """Fail all calls that still wait."""
        self._relay.give_up()


class TracedOperations(Operations):
    """Operations, each submission of which has a span until Redis has it.

    The spans of the worker are its children, however much later they come.
    """

    def __init__(self, *args: Any, tracer: "Tracer") -> None:
        super().__init__(*args)
        self._tracer = tracer

    async def submit(self, job: job_pb2.Job, image: bytes, **terms: Any) -> Operation:
        """Accept an operation, or find the one that the same request made.

        Raises:
            DespachoError: it was not accepted; the class says why.
        """
        if not is_sampled(job.traceparent):
            return await super().submit(job, image, **terms)
        with _sending(self._tracer, "submit", job, image, Priority.OPERATION) as span:
            operation = await super().submit(job, image, **terms)
            span.add({"messaging.message.id": operation.job.id})
            return operation


@contextmanager
def _sending(
    tracer: "Tracer", what: str, job: job_pb2.Job, image: bytes, priority: Priority
) -> Iterator["Span"]:
    span = tracer.begin(
        f"{what} {job.model}",
        "producer",
        {
            "messaging.system": "redis",
            "messaging.operation.name": what,
            "messaging.operation.type": "send",
            "messaging.destination.name": keys.jobs(job.model, priority),
            "messaging.message.body.size": len(image),
            "despacho.model": job.model,
            "despacho.request_id": job.request_id,
        },
        parent=job.traceparent,
    )
    job.traceparent = span.traceparent
    try:
        yield span
    except asyncio.CancelledError:
        span.fail("CANCELLED")
        raise
    except Exception as error:
        span.fail(reason_for(error))
        raise
    finally:
        span.end()
