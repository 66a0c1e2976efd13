"""One front-end process: which parts there are, and how they start and stop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from dispatch.dead_letters import DeadLetters
from dispatch.done_stream import DoneStream
from dispatch.job_store import JobStore, QueueLimits
from dispatch.jobs import Outcome
from dispatch.link import Link
from dispatch.operation_store import OperationStore
from dispatch.operations import OperationLimits
from dispatch.stats_store import StatsStore
from server import front_end_metrics, ports
from server.admin import Admin
from server.binding import CannotListen
from server.done_watch import DoneWatch
from server.fleet import Fleet
from server.grpc_server import grpc_server
from server.image_spans import TracedOperations, TracedRelay
from server.lost_jobs import LostJobs
from server.operations import Operations
from server.overdue_jobs import OverdueJobs
from server.pending import PendingReplies
from server.redis_clock import RedisClock
from server.relay import Relay
from server.reply_reader import ReplyReader
from server.settings import ServerSettings
from server.stats import Stats
from server.writer import Writer
from supervision.process_name import process_name
from telemetry import metrics, tracing

SETTLE_S: Final = 1.0
"""How long the last cancels may take to reach Redis, seconds."""


async def serve(
    settings: ServerSettings, stop: asyncio.Event, *, on_ready: Callable[[str], None]
) -> None:
    """Run until `stop` is set; then drain and close, last opened first.

    Args:
        settings: the knobs.
        stop: ends it.
        on_ready: called with the address once it accepts calls.

    Raises:
        CannotListen: the address is in use, or not ours.
        BadCertificate, BadKeysFile: they cannot be used.
    """
    limits = QueueLimits(settings.queue_max_jobs, settings.queue_max_bytes)
    name = process_name()
    link = Link()
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(metrics.served(settings.metrics_address))
        except metrics.CannotServeMetrics as error:
            raise CannotListen(str(error)) from error
        store = await stack.enter_async_context(
            JobStore(settings.redis_url, name, limits, on_spared=spared)
        )
        # Before the tasks, which say good-bye over it.
        stats_store = await stack.enter_async_context(StatsStore(settings.redis_url))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        pending = PendingReplies(
            max_jobs=settings.max_in_flight_jobs, max_bytes=settings.max_in_flight_bytes
        )
        clock = RedisClock()
        reader = ReplyReader(store, link, pending, tasks, clock=clock)
        stack.callback(reader.stop)
        writer = Writer(store, link, pending)

        async def listen(model: str) -> None:
            await reader.listen(model)
            metrics.begin_at_zero(model, ("queue",), infers=False)

        done = DoneWatch(partial(DoneStream, settings.redis_url), tasks)
        stack.callback(done.stop)

        async def listen_to_no_other(models: Collection[str]) -> None:
            done.watch_no_other(models)
            await reader.listen_to_no_other(models)

        fleet = Fleet(
            store,
            link,
            listen,
            listen_to_no_other,
            default_model=settings.default_model,
            no_worker_grace_s=settings.no_worker_grace_s,
        )
        operation_store = await stack.enter_async_context(
            OperationStore(
                settings.redis_url,
                OperationLimits(
                    jobs=settings.operations_max_jobs,
                    size_bytes=settings.operations_max_bytes,
                    kept=settings.operations_max_kept,
                    deadline_s=settings.operation_deadline_s,
                    ttl_s=settings.operation_ttl_s,
                ),
                on_spared=spared,
            )
        )
        letters = await stack.enter_async_context(
            DeadLetters(settings.redis_url, max_image_bytes=settings.max_image_bytes)
        )
        stats = Stats(
            stats_store,
            lambda: [view.card.name for view in fleet.models()],
            server_id=name,
            clock=clock,
        )
        stack.enter_context(front_end_metrics.shown(pending, stats, link))
        if metrics.are_wanted(settings.metrics_address):
            stack.enter_context(stats.watched())
        for part in (
            *(writer, fleet, LostJobs(store, pending, writer)),
            *(operation_store, OverdueJobs(store, operation_store, fleet), letters, stats),
        ):
            await stack.enter_async_context(_running(tasks, part.run()))
        # Calls that are cut off still retire their jobs.
        stack.push_async_callback(writer.settle, SETTLE_S)
        relay: ports.Relay = Relay(fleet, pending, writer, name)
        operations = Operations(operation_store, link, fleet, done)
        if tracing.tracer is not None:
            relay = TracedRelay(relay, tracing.tracer)
            operations = TracedOperations(operation_store, link, fleet, done, tracer=tracing.tracer)
        admin = Admin(letters, operations, link, fleet)
        address = await stack.enter_async_context(
            grpc_server(
                settings,
                relay=relay,
                operations=operations,
                admin=admin,
                stats=stats,
                fleet=fleet,
            )
        )
        on_ready(address)
        await stop.wait()


def spared(model: str, outcome: Outcome) -> None:
    """Count a job that was retired before a worker had it."""
    metrics.count_avoided(model, "queue", _CAUSES[outcome])


_CAUSES: Final[dict[Outcome, metrics.Unwanted]] = {
    Outcome.CANCELLED: "cancelled",
    Outcome.EXPIRED: "expired",
}


@asynccontextmanager
async def _running(tasks: asyncio.TaskGroup, coroutine: Any) -> AsyncIterator[None]:
    """Run a part while inside; should it fail, the task group ends the process."""
    task = tasks.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
