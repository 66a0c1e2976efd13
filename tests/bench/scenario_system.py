"""What must not depend on how much of the system there is: workers, front-ends, waiting jobs."""

import asyncio
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Final

from deploy.address import free_port
from dispatch.operation_store import OperationStore
from server.settings import ServerSettings
from tests.backlog import BACKLOG_LIMITS, in_portions, pile_up
from tests.bench.bench import Bench, compared, rate_ratio, system_side
from tests.bench.loads import Side, Unary
from tests.bench.payloads import MODEL, model_directory, payload, request, write_body
from tests.bench.results import Bound, Run, Value
from tests.bench.rig import Rig
from tests.bench.scenarios import NotMeasured, scenario

SLEEP_MS: Final = 20
CREWS: Final = (1, 8, 32)
TARGETS: Final = {8: 7.6, 32: 28.0}
IN_FLIGHT: Final = 4
"""Calls for each worker: two in its hands, two that wait."""

SMALL: Final = 10_000
TINY: Final = 100
WAITING: Final = 100_000
DEPTH_BATCH: Final = 8
SLOWDOWN: Final = 1.2
MANY_CONNECTIONS: Final = 16
"""The kernel spreads connections over processes, by chance."""


@scenario("scaling", "An engine that sleeps 20 ms per image: 1, 8 and 32 workers")
async def scaling(bench: Bench) -> None:
    """Serve a model with each number of workers, so that all can be asked in turn."""
    bench.settings["load"] = "h2load, 4 connections, 10 KB, 4 calls in flight for each worker"
    async with bench.rig() as rig:
        front_end = rig.front_end().pid
        loads = [crew(rig, front_end, count) for count in CREWS]
        for count in CREWS:
            await rig.until_served(count, crew_name(count))
            await rig.check_answers(rig.address, crew_name(count))
        rounds = bench.interleave(loads)
    for position, count in enumerate(CREWS[1:], start=1):
        ratios = compared(rounds, rate_ratio, first=position, second=0)
        what = f"engine that sleeps 20 ms, batch 1, {count} workers, of one"
        bench.must(what, Bound.AT_LEAST, TARGETS[count], " x", ratios)


def crew_name(count: int) -> str:
    """Return the model that so many workers serve."""
    return f"{MODEL}-{count}"


def crew(rig: Rig, front_end: int, count: int) -> Unary:
    """Start so many workers of a model of their own; return the load on them."""
    name = crew_name(count)
    directory = model_directory(rig.folder, name)
    workers = [
        rig.sleeper(directory, SLEEP_MS, max_batch_size=1, processes=1) for _ in range(count)
    ]
    side = system_side(
        rig,
        {"front-end": [front_end], "workers": [each.pid for each in workers]},
        name=f"{count} worker" + ("s" if count > 1 else ""),
        model=name,
    )
    body = write_body(directory / "body", request(payload(SMALL), name))
    return Unary(side, "10 KB", body, IN_FLIGHT * count)


@scenario("processes", "Front-ends of one process and of two")
async def processes(bench: Bench) -> None:
    if "processes" not in ServerSettings.model_fields:
        raise NotMeasured("this front-end has one process")
    bench.settings["load"] = f"h2load, {MANY_CONNECTIONS} connections, 10 KB, 64 calls in flight"
    async with bench.rig() as rig:
        _, worker = await rig.no_op()
        body = write_body(rig.folder / "body", request(payload(SMALL)))
        loads = []
        for count in (2, 1):
            process = rig.front_end(processes=count, address=f"127.0.0.1:{free_port()}")
            await rig.until_served()
            await rig.check_answers(rig.address)
            pids = {"front-end": [process.pid], "worker": [worker.pid]}
            side = system_side(rig, pids, name=f"SERVER_PROCESSES={count}")
            loads.append(Unary(side, "10 KB", body, 64, MANY_CONNECTIONS))
        ratios = compared(bench.interleave(loads), rate_ratio)
    cores = bench.cores
    what = f"front-end of 2 processes, of one process, on {cores} cores"
    bench.must(what, Bound.AT_LEAST, 1, " x", ratios)


@scenario("depth", "100,000 operations that wait, and calls beside them")
async def depth(bench: Bench) -> None:
    """Measure before, during and after, as the machine may change meanwhile."""
    bench.settings["load"] = "h2load, 4 connections, 10 KB"
    bench.settings["engine"] = f"sleeps {SLEEP_MS} ms per batch of at most {DEPTH_BATCH}"
    async with bench.rig() as rig:
        front_end = rig.front_end()
        worker = rig.sleeper(
            model_directory(rig.folder), SLEEP_MS, max_batch_size=DEPTH_BATCH, processes=1
        )
        await rig.until_served()
        await rig.check_answers(rig.address)
        body = write_body(rig.folder / "body", request(payload(SMALL)))
        pids = {
            "front-end": [front_end.pid],
            "worker": [worker.pid],
            "Redis": [rig.redis.pid],
        }

        def measured(name: str) -> list[list[Run]]:
            # No books: operations end meanwhile, too.
            side = Side(name, rig.address, pids)
            return bench.interleave([Unary(side, "10 KB", body, each) for each in (32, 1)])

        before = measured("nothing waits")
        async with OperationStore(rig.redis.url, BACKLOG_LIMITS) as store:
            running = asyncio.create_task(store.run())
            piled = await pile_up(store, WAITING, model=MODEL, image=payload(TINY))
            during = measured("operations wait")
            left = rig.entries()
            await in_portions(piled, store.cancel)
            running.cancel()
        after = measured("nothing waits again")
        await rig.check_answers(rig.address)
    bench.notes.append(f"{left:,} operations were left when the last load beside them had ended.")
    beside = f"beside {WAITING:,} operations"
    for position, load in enumerate(("c=32", "c=1")):
        rounds = [
            [each[position] for each in three] for three in zip(before, during, after, strict=True)
        ]
        slower = factor(rounds, lambda run: 1 / run.rate)
        bench.must(f"{load}, time per call {beside}", Bound.AT_MOST, SLOWDOWN, " x", slower)
        later = factor(rounds, lambda run: run.p50_ms)
        bench.must(f"{load}, p50 {beside}", Bound.AT_MOST, SLOWDOWN, " x", later)


def factor(rounds: Sequence[Sequence[Run]], of: Callable[[Run], float]) -> list[Value]:
    """Return how many times as much it is in the second of three runs as in the others."""
    return [
        Value(
            value=of(during) / mean((of(before), of(after))),
            disturbance=before.disturbance.worse(during.disturbance).worse(after.disturbance),
        )
        for before, during, after in rounds
    ]
