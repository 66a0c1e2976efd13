"""Faults of Redis, and of the way to it."""

import asyncio
from collections.abc import Callable

from tests.chaos.proxy import Proxy
from tests.chaos.rig import LEASE_S, Rig
from tests.chaos.rows import row

AWAY = {"BROKER_UNAVAILABLE"}
FEW_S = 1.0


@row("redis-killed", "Redis killed and started again, three times, with calls waiting")
async def redis_killed(rig: Rig) -> None:
    rig.front_end()
    for _ in range(3):
        rig.worker()
    await rig.until_ready(workers=3)
    crowd = rig.crowd(honest=AWAY)
    async with crowd.busy():
        for _ in range(1 if rig.options.is_quick else 3):
            await asyncio.sleep(FEW_S)
            entries = rig.entries()
            rig.redis.kill()
            await asyncio.sleep(FEW_S)
            await asyncio.to_thread(rig.redis.start)
            rig.inject(f"SIGKILL, {entries} jobs there; away for {FEW_S:.0f} s")
            await rig.until_ready(workers=3)
    await rig.until_ready(workers=3)


@row("script-flush", "SCRIPT FLUSH, twenty times under load")
async def script_flush(rig: Rig) -> None:
    rig.front_end()
    for _ in range(3):
        rig.worker()
    await rig.until_ready(workers=3)
    crowd = rig.crowd()
    with rig.redis.client() as client:
        async with crowd.busy():
            for _ in range(20):
                await asyncio.sleep(FEW_S / 10)
                client.script_flush()
                rig.inject("20 times")
    rig.expect({call.attempt for call in crowd.calls} == {1}, "a job ran twice")


@row("maxmemory", "Redis at its maxmemory with calls waiting")
async def maxmemory(rig: Rig) -> None:
    rig.front_end()
    workers = [rig.worker(inference_ms=200) for _ in range(2)]
    await rig.until_ready(workers=2)
    accepted = rig.crowd()
    refused = rig.crowd(honest={"QUEUE_FULL"})
    calls = [asyncio.create_task(accepted.predict()) for _ in range(200)]
    await rig.until(lambda: rig.totals().get("accepted") == len(calls), 10)
    with rig.redis.client() as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", "1mb")
        waiting = rig.entries()
        async with refused.busy(callers=5, streams=1):
            await asyncio.gather(*calls)
            # Longer than heartbeats and leases live without being renewed.
            await asyncio.sleep(LEASE_S + 1)
            await rig.until_ready(workers=len(workers))
        client.config_set("maxmemory", limit)
        rig.inject(f"CONFIG SET maxmemory 1mb, {waiting} jobs there", recovers=False)
    rig.expect(
        {call.refusal for call in refused.calls} == {"QUEUE_FULL"},
        "new calls were not refused as QUEUE_FULL",
    )
    rig.expect({call.attempt for call in accepted.calls} == {1}, "a lease was not renewed")


async def behind_proxies(
    rig: Rig, fault: Callable[[Proxy], object], *, times: int, pause_s: float, what: str
) -> None:
    proxy = rig.proxy()
    rig.front_end(url=proxy.url)
    for _ in range(2):
        rig.worker(url=proxy.url)
    await rig.until_ready(workers=2)
    crowd = rig.crowd(honest=AWAY)
    async with crowd.busy():
        hit = 0
        for _ in range(times):
            await asyncio.sleep(pause_s)
            hit += proxy.connections
            fault(proxy)
            rig.inject(what.format(hit))
        await asyncio.sleep(FEW_S)
    await rig.until_ready(workers=2)


@row("dropped", "all connections to Redis reset, ten times under load")
async def dropped(rig: Rig) -> None:
    await behind_proxies(rig, Proxy.drop, times=10, pause_s=0.3, what="{} connections reset")


@row("half-closed", "all connections to Redis half-closed, ten times under load")
async def half_closed(rig: Rig) -> None:
    await behind_proxies(rig, Proxy.half_close, times=10, pause_s=0.3, what="{} FINs")


@row("delayed", "all data to and from Redis delayed: by 0.2 s, then by more than time-outs allow")
async def delayed(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.front_end(url=proxy.url)
    for _ in range(2):
        rig.worker(url=proxy.url)
    await rig.until_ready(workers=2)
    crowd = rig.crowd(honest=AWAY)
    async with crowd.busy():
        for delay_s in (0.2, 2.0):
            await asyncio.sleep(FEW_S)
            proxy.delay(delay_s)
            await asyncio.sleep(3 * FEW_S)
            proxy.delay(0)
            rig.inject("0.2 s for 3 s, 2 s for 3 s")
    await rig.until_ready(workers=2)


@row("cut-off", "one of two workers cut off from Redis without a word, longer than its lease")
async def cut_off(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.front_end()
    rig.worker()
    rig.worker(url=proxy.url)
    await rig.until_ready(workers=2)
    crowd = rig.crowd()
    async with crowd.busy():
        await asyncio.sleep(FEW_S)
        proxy.swallow()
        rig.inject(f"cable cut for {LEASE_S + 3:.0f} s, {rig.in_hand()} in hands")
        await asyncio.sleep(LEASE_S + 3)
        proxy.flow()
        await rig.until_ready(workers=2)
        await asyncio.sleep(FEW_S)


@row("front-end-cut-off", "a front-end cut off from Redis without a word, with calls waiting")
async def front_end_cut_off(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.front_end(url=proxy.url)
    rig.worker()
    rig.worker()
    await rig.until_ready(workers=2)
    crowd = rig.crowd(honest=AWAY)
    async with crowd.busy():
        await asyncio.sleep(FEW_S)
        proxy.swallow()
        await asyncio.sleep(4)
        # All others may be waiting for what they asked before, and ask nothing new.
        newcomer = await crowd.predict()
        await asyncio.sleep(1)
        proxy.flow()
        rig.inject("cable cut for 5 s")
        await rig.until_ready(workers=2)
        await asyncio.sleep(FEW_S)
    rig.expect(newcomer.refusal == "BROKER_UNAVAILABLE", "a new call was not refused")
