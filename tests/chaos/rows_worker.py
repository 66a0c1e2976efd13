"""Faults of workers."""

import asyncio
import shutil
import subprocess
from pathlib import Path

from tests.chaos.rig import LEASE_S, NOTICED_S, ChaosWorker, Rig
from tests.chaos.rows import NotRun, row
from tests.stack import Colour
from tests.worker_process import CRASH

FEW_S = 1.0
"""How long callers go on before and after a fault."""


async def kill_at(rig: Rig, stage: str, passes: int) -> None:
    rig.front_end()
    rig.worker()
    rig.worker()
    victim = rig.worker(stop_at=stage, passes=passes)
    await rig.until_ready(workers=3)
    crowd = rig.crowd()
    async with crowd.busy():
        await victim.reached()
        held = rig.in_hand()
        rig.inject(f"SIGKILL, {held} in hands")
        await victim.kill()
        await asyncio.sleep(FEW_S)
    lost_twice = [call for call in crowd.calls if call.attempt > 2]
    rig.expect(not lost_twice, f"{len(lost_twice)} jobs were lost twice")
    slowest = max((call.took_s for call in rig.waited()), default=0)
    rig.expect(slowest < NOTICED_S + 3, f"a waiting call took {slowest:.1f} s")


@row("kill-after-claim", "worker killed when Redis gave it jobs and before it knew")
async def kill_after_claim(rig: Rig) -> None:
    await kill_at(rig, "after-claim", passes=5)


@row("kill-decoding", "worker killed while it decodes an image")
async def kill_decoding(rig: Rig) -> None:
    await kill_at(rig, "decoding", passes=20)


@row("kill-inferring", "worker killed while the model runs")
async def kill_inferring(rig: Rig) -> None:
    await kill_at(rig, "inferring", passes=5)


@row("kill-before-complete", "worker killed with answers that Redis does not have")
async def kill_before_complete(rig: Rig) -> None:
    await kill_at(rig, "before-complete", passes=5)


@row("kill-after-complete", "worker killed when Redis has its answers and before it knew")
async def kill_after_complete(rig: Rig) -> None:
    await kill_at(rig, "after-complete", passes=5)


@row("kill-renewing", "worker killed when Redis renewed its leases and before it knew")
async def kill_renewing(rig: Rig) -> None:
    await kill_at(rig, "renewing", passes=5)


@row("suspend", "worker suspended beyond its lease, then woken: two finish the same jobs")
async def suspend(rig: Rig) -> None:
    rig.front_end()
    sleeper = rig.worker(stop_at="inferring")
    await rig.until_ready()
    crowd = rig.crowd()
    calls = [asyncio.create_task(crowd.predict()) for _ in range(8)]
    await sleeper.reached()
    rig.stall(sleeper)
    rig.inject("SIGSTOP until others had answered, SIGCONT")
    rig.worker()
    await asyncio.gather(*calls)
    in_both = {call.result().colour for call in calls} & set(rig.inferred())
    rig.resume(sleeper)
    sleeper.release()
    await rig.until_ready(workers=2)
    # Its own late completion is under way or over when it answers something new.
    async with crowd.busy():
        await asyncio.sleep(FEW_S)
    repeated = sum(count > 1 for count in rig.inferred().values())
    rig.expect(in_both, "nothing was inferred")
    rig.expect(repeated > 0, "no job was finished by both")


@row("long-inference", "inferences longer than the lease of a worker that lives")
async def long_inference(rig: Rig) -> None:
    rig.front_end()
    rig.worker(inference_ms=(LEASE_S + 2) * 1000)
    rig.worker(inference_ms=(LEASE_S + 2) * 1000)
    await rig.until_ready(workers=2)
    crowd = rig.crowd()
    rig.inject(f"inferences of {LEASE_S + 2:.0f} s, leases of {LEASE_S:.0f} s", recovers=False)
    calls = await asyncio.gather(*(crowd.predict() for _ in range(8)))
    rig.expect({call.attempt for call in calls} == {1}, "a job was taken from a live worker")
    rig.expect(max(rig.inferred().values()) == 1, "a job was inferred twice")


@row("poison", "an image that kills its worker, in a full batch")
async def poison(rig: Rig) -> None:
    rig.front_end()
    first = rig.worker(stop_at="inferring")
    await rig.until_ready()
    crowd = rig.crowd()
    poisoned = rig.crowd(honest={"JOB_POISONED"})
    opener = asyncio.create_task(crowd.predict())
    await first.reached()
    neighbours = [asyncio.create_task(crowd.predict()) for _ in range(7)]
    crash = asyncio.create_task(poisoned.predict(colour=CRASH))
    await rig.until(lambda: rig.in_hand() == 9, 10)
    rig.worker()
    rig.worker()
    await rig.until_ready(workers=3)
    first.release()
    await asyncio.to_thread(first.process.wait)
    rig.inject("one of 8 in a batch; killed 2 of 3 workers")
    await asyncio.gather(opener, *neighbours)
    rig.expect((await crash).refusal == "JOB_POISONED", f"the caller got {crash.result().refusal}")
    company = [batch for batch in rig.batches() if CRASH in batch]
    rig.expect(len(company) == 2, f"it ran {len(company)} times")
    rig.expect(company and len(company[0]) > 1, "it was not in a batch with others")
    rig.expect(company[1:] == [[CRASH]], "it was not alone the second time")
    rig.expect(rig.totals().get("poisoned") == 1, "it was not set aside")


@row("clock", "wall clock of a worker stepped by 60 s, forth and back")
async def clock(rig: Rig) -> None:
    faketime = faketime_environment(rig.redis.folder / "clock")
    steered = rig.redis.folder / "clock"
    rig.front_end()
    rig.worker()
    worker = rig.worker(environment=faketime)
    await rig.until_ready(workers=2)
    crowd = rig.crowd()
    async with crowd.busy():
        await asyncio.sleep(FEW_S)
        for step, seen in (("+60s", r"stepped \+60"), ("-60s", r"stepped -(60|120)")):
            # At once: a reader of a file that is being written would see no step at all.
            fresh = steered.with_suffix(".new")
            fresh.write_text(step)
            fresh.replace(steered)
            rig.inject("+60 s, then -60 s", recovers=False)
            await asyncio.to_thread(worker.process.wait_for_line, seen)
            await asyncio.sleep(LEASE_S + 1)
    repeated = [call for call in crowd.calls if call.attempt > 1]
    rig.expect(not repeated, f"{len(repeated)} jobs were taken from a live worker")


def faketime_environment(steered: Path) -> dict[str, str]:
    """Return what puts a process under a clock that a file steers.

    Raises:
        NotRun: there is no faketime.
    """
    program = shutil.which("faketime")
    if program is None:
        raise NotRun("needs faketime")
    shown = subprocess.run(
        [program, "-f", "+0s", "env"], capture_output=True, text=True, check=True
    ).stdout
    preload = [line for line in shown.splitlines() if line.startswith("LD_PRELOAD=")]
    if not preload:
        raise NotRun("needs a faketime that preloads a library")
    steered.write_text("+0s")
    return {
        "LD_PRELOAD": preload[0].partition("=")[2],
        "FAKETIME_TIMESTAMP_FILE": str(steered),
        "FAKETIME_NO_CACHE": "1",
        # Both spellings; the clock that measures leases must stay true.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        # Python waits on the monotonic clock; an older faketime would bend that as well.
        "FAKETIME_DONT_RESET": "1",
    }


@row("rolling", "all workers replaced one after the other (SIGTERM)")
async def rolling(rig: Rig) -> None:
    rig.front_end()
    workers: list[ChaosWorker] = [rig.worker() for _ in range(3)]
    await rig.until_ready(workers=3)
    crowd = rig.crowd()
    async with crowd.busy():
        await asyncio.sleep(FEW_S)
        for old in list(workers):
            workers.append(rig.worker())
            await rig.until_ready(workers=4)
            rig.inject("3 of 3")
            code = await asyncio.to_thread(old.process.terminate)
            rig.expect(code == 0, f"a worker ended with {code}")
            await rig.until_ready(workers=3)
    rig.expect({call.attempt for call in crowd.calls} == {1}, "a replacement counted as an attempt")
    twice: list[Colour] = [colour for colour, count in rig.inferred().items() if count > 1]
    rig.expect(not twice, f"{len(twice)} jobs were inferred twice")
