"""Operations: accepted is accepted, and a backlog of them is in nobody's way."""

import asyncio
import statistics
from typing import Any, Final

from google.longrunning.operations_pb2_grpc import OperationsStub

from dispatch.operation_store import OperationStore
from tests.backlog import BACKLOG_LIMITS, in_portions, pile_up
from tests.chaos.crowd import Call, Crowd
from tests.chaos.rig import Rig
from tests.chaos.rows import row
from tests.chaos.submitters import attempts
from tests.stack import image_of
from tests.worker_process import MODEL

SLOWDOWN: Final = 1.5


@row("operations-front-end", "a front-end killed and restarted in the middle of its operations")
async def operations_front_end(rig: Rig) -> None:
    count = 200 if rig.options.is_quick else 1000
    for _ in range(2):
        rig.worker(inference_ms=20)
    victim = rig.front_end()
    await rig.until_ready(workers=2)
    submitters = rig.submitters()
    rig.front_end()
    await rig.until_ready(workers=2)
    there = operations(rig)
    submitting = asyncio.create_task(submitters.submit_all(count))
    await rig.until(lambda: len(submitters.names) >= count // 2, 60)
    rig.inject(f"SIGKILL with {count:,} operations under way, restart")
    await asyncio.to_thread(victim.process.kill)
    rig.front_end(address=victim.address)
    await submitting
    await submitters.fetch_all(there)
    rig.expect(len(submitters.names) == count, f"only {len(submitters.names)} were accepted")


@row("operations-all-die", "Redis, a worker and the front-end killed while operations wait")
async def operations_all_die(rig: Rig) -> None:
    count = 100 if rig.options.is_quick else 300
    workers = [rig.worker(inference_ms=50) for _ in range(2)]
    victim = rig.front_end()
    await rig.until_ready(workers=2)
    submitters = rig.submitters()
    await submitters.submit_all(count)
    await rig.until(lambda: rig.in_hand() > 0, 10)
    await asyncio.to_thread(rig.redis.wait_until_written)
    rig.inject(f"SIGKILL of all three with {rig.entries()} operations waiting")
    await asyncio.to_thread(victim.process.kill)
    await workers[0].kill()
    await asyncio.to_thread(rig.redis.kill)
    await asyncio.to_thread(rig.redis.start)
    rig.front_end()
    await rig.until_ready(workers=1)
    await submitters.fetch_all(operations(rig))
    rig.expect(attempts(submitters.calls), "no operation was in the hands of the killed worker")


@row("operations-backlog", "calls beside 100,000 operations that wait")
async def operations_backlog(rig: Rig) -> None:
    count = 10_000 if rig.options.is_quick else 100_000
    rig.front_end()
    rig.worker(inference_ms=20)
    await rig.until_ready()
    rig.is_exact = False
    crowd = rig.crowd()
    before = await one_by_one(crowd)
    async with OperationStore(rig.redis.url, BACKLOG_LIMITS) as store:
        running = asyncio.create_task(store.run())
        piled = await pile_up(store, count, model=MODEL, image=image_of((200, 100, 50)))
        during = await one_by_one(crowd)
        left = rig.entries()
        await in_portions(piled, store.cancel)
        running.cancel()
    # Once more alone, as the machine may have become slower meanwhile.
    after = await one_by_one(crowd)
    alone_s = statistics.median([call.took_s for call in (*before, *after)])
    beside_s = statistics.median([call.took_s for call in during])
    rig.inject(
        f"p50 {beside_s * 1000:.0f} ms beside {left:,} waiting operations, "
        f"{alone_s * 1000:.0f} ms alone",
        recovers=False,
    )
    rig.expect(left >= 0.9 * count, f"only {left:,} operations were left")
    rig.expect(
        beside_s < SLOWDOWN * alone_s, f"p50 of calls is {beside_s / alone_s:.2f} x of that alone"
    )


async def one_by_one(crowd: Crowd, count: int = 100) -> list[Call]:
    """Make calls, each after the answer to the last."""
    return [await crowd.predict() for _ in range(count)]


def operations(rig: Rig) -> Any:
    """Return the operations of the front-end started last."""
    return OperationsStub(rig.channel())
