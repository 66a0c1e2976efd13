"""More calls than the workers can answer."""

import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.crowd import Call, Crowd, next_colour
from tests.chaos.rig import FrontEnd, Rig
from tests.chaos.rows import NotJudged, row

TICK_S: Final = 0.01
TIMES: Final = 10
QUEUE_JOBS: Final = 50
"""Half a second of work: what a call may have before it when it is accepted."""

REFUSED_S: Final = 0.05
ACCEPTED_FACTOR: Final = 2.0
GROWTH: Final = 1.1
SAMPLE_S: Final = 0.5
STOLEN_MOST: Final = 0.05
"""With more of the CPU given to other machines, times say nothing of this system."""

RAMP_S: Final = 5.0
"""Until a process that was idle has the memory that the load needs."""


@row("overload", "ten times the calls that the workers can answer")
async def overload(rig: Rig) -> None:
    front_end = rig.front_end(queue_max_jobs=QUEUE_JOBS)
    rig.worker(inference_ms=80)  # batches of 8: 100 images a second
    await rig.until_ready()
    at_capacity = rig.crowd()
    # As many callers as the queue has room for: the most that is refused to nobody.
    seconds = 5 if rig.options.is_quick else 10
    async with at_capacity.busy(callers=QUEUE_JOBS, streams=0):
        await asyncio.sleep(seconds)
    per_s = len(at_capacity.calls) / seconds
    flood = rig.crowd(honest={"QUEUE_FULL"})
    before = cpu_times()
    memory = await pour(
        flood, front_end, per_s=TIMES * per_s, seconds=10 if rig.options.is_quick else 30
    )
    stolen = stolen_share(before, cpu_times())
    offered = len(flood.calls) / (10 if rig.options.is_quick else 30)
    refused = [call for call in flood.calls if call.refusal]
    normal_s = p99_s(at_capacity.answered())
    accepted_s = p99_s(flood.answered())
    refused_s = p99_s(refused)
    growth = statistics.mean(memory[-len(memory) // 3 :]) / statistics.mean(
        memory[: len(memory) // 3]
    )
    rig.inject(
        f"{offered:,.0f} calls/s at {per_s:.0f}/s; p99 refused {refused_s * 1000:.0f} ms, "
        f"accepted {accepted_s * 1000:.0f} ms against {normal_s * 1000:.0f} ms at capacity; "
        f"RSS x {growth:.2f}",
        recovers=False,
    )
    is_slow = refused_s >= REFUSED_S or accepted_s >= ACCEPTED_FACTOR * normal_s
    if is_slow and stolen > STOLEN_MOST:
        raise NotJudged(f"{stolen:.0%} of the CPU went to other machines; {rig.injected}")
    rig.expect(offered > 0.9 * TIMES * per_s, f"only {offered:.0f} calls/s were made")
    rig.expect(refused_s < REFUSED_S, f"p99 of refusals is {refused_s * 1000:.0f} ms")
    rig.expect(
        accepted_s < ACCEPTED_FACTOR * normal_s,
        f"p99 of accepted calls is {accepted_s:.2f} s, {normal_s:.2f} s at capacity",
    )
    rig.expect(growth < GROWTH, f"the front-end's memory grew {growth:.2f}-fold")


def cpu_times() -> list[int]:
    """Return what the CPUs did since the start, in ticks; empty where nobody tells."""
    try:
        return [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        return []


def stolen_share(before: list[int], after: list[int]) -> float:
    """Return which share of the CPUs the host gave to other machines meanwhile."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return spent[7] / sum(spent) if spent else 0.0


async def pour(crowd: Crowd, front_end: FrontEnd, *, per_s: float, seconds: float) -> list[int]:
    """Make calls at a steady rate, answered or not; return the memory of the front-end."""
    clock = asyncio.get_running_loop().time
    began = clock()
    made: set[asyncio.Task[Call]] = set()
    count = 0
    memory: list[int] = []
    # Encoded once: what makes the calls must not be what cannot keep up.
    palette = [next_colour() for _ in range(500)]
    while (elapsed := clock() - began) < seconds:
        while count < elapsed * per_s:
            call = asyncio.create_task(crowd.predict(colour=palette[count % len(palette)]))
            made.add(call)
            call.add_done_callback(made.discard)
            count += 1
        if elapsed > RAMP_S + len(memory) * SAMPLE_S:
            memory.append(front_end.rss_bytes())
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*made)
    return memory


def p99_s(calls: Sequence[Call]) -> float:
    """Return what 99 of 100 calls stay below."""
    return statistics.quantiles([call.took_s for call in calls], n=100)[98]
