"""Faults of front-ends, and callers who behave badly."""

import asyncio
import random
from contextlib import suppress

import grpc

from prediction.v1 import prediction_pb2
from tests.chaos.crowd import Crowd, next_colour
from tests.chaos.rig import Rig
from tests.chaos.rows import row
from tests.stack import request_for

Stream = grpc.aio.StreamStreamCall[
    prediction_pb2.PredictStreamRequest, prediction_pb2.PredictStreamResponse
]

FEW_S = 1.0
MIB = 1024 * 1024


@row("front-end-killed", "one of two front-ends killed with calls waiting")
async def front_end_killed(rig: Rig) -> None:
    for _ in range(2):
        rig.worker(inference_ms=100)
    victim = rig.front_end()
    await rig.until_ready(workers=2)
    callers = rig.crowd(honest={"UNAVAILABLE"})
    rig.front_end()
    await rig.until_ready(workers=2)
    others = rig.crowd()
    # What its callers waited for is computed, and nobody takes the answer.
    rig.is_exact = False
    async with callers.busy(), others.busy():
        await asyncio.sleep(FEW_S)
        waiting = sum(call.ended is None for call in callers.calls)
        rig.inject(f"SIGKILL, {waiting} calls waiting")
        await asyncio.to_thread(victim.process.kill)
        await asyncio.sleep(2 * FEW_S)
    rig.expect(waiting, "nobody was waiting")
    told = [call for call in rig.waited() if call.refusal]
    rig.expect({call.refusal for call in told} == {"UNAVAILABLE"}, "callers were told otherwise")
    slow = [call for call in callers.calls if call.refusal and call.took_s > 2 * FEW_S]
    rig.expect(not slow, f"{len(slow)} callers were told late")


@row("unread-streams", "streams whose callers send and never read")
async def unread_streams(rig: Rig) -> None:
    count, images, window = (200 if rig.options.is_quick else 1000), 40, 8
    front_end = rig.front_end(stream_window=window)
    for _ in range(2):
        rig.worker(inference_ms=1)
    await rig.until_ready(workers=2)
    crowd = rig.crowd()
    await crowd.predict()
    rig.is_exact = False
    before = front_end.rss_bytes()
    # A small window of the caller's, so that a few answers that are not read fill it.
    stub = rig.stub_with([("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)])
    streams = [stub.PredictStream(timeout=120) for _ in range(count)]

    async def send(stream: Stream) -> None:
        for _ in range(images):
            await stream.write(
                prediction_pb2.PredictStreamRequest(request=request_for(next_colour()))
            )

    senders = [asyncio.create_task(send(stream)) for stream in streams]
    await quiet(rig)
    taken = rig.totals()["accepted"]
    grown = front_end.rss_bytes() - before
    rig.inject(f"{count:,} streams, {grown / MIB:.0f} MiB more in the front-end", recovers=False)
    async with crowd.busy(callers=20, streams=2):
        await asyncio.sleep(2 * FEW_S)
    for sender, stream in zip(senders, streams, strict=True):
        sender.cancel()
        stream.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    rig.expect(taken < count * images, "the front-end read on although nobody took its answers")
    rig.expect(grown < 200 * MIB, f"the front-end grew by {grown / MIB:.0f} MiB")
    worst = max(call.took_s for call in crowd.calls)
    rig.expect(worst < FEW_S, f"a caller who reads waited {worst:.1f} s")


async def quiet(rig: Rig) -> None:
    """Wait until the front-end takes no more images in."""
    last, same = -1, 0
    while same < 10:
        await asyncio.sleep(0.2)
        taken = rig.totals().get("accepted", 0)
        same = same + 1 if taken == last and rig.entries() == 0 else 0
        last = taken


@row("cancelled", "calls cancelled at any moment of their lives, beside others that stay")
async def cancelled(rig: Rig) -> None:
    wanted = 1000 if rig.options.is_quick else 10_000
    rig.front_end()
    for _ in range(2):
        rig.worker(inference_ms=20)
    await rig.until_ready(workers=2)
    rig.is_exact = False
    others = rig.crowd()
    leavers = rig.crowd(honest={"CANCELLED"})
    chance = random.Random(7)
    count = 0
    async with others.busy(callers=10, streams=1):
        while count < wanted:
            wave = [asyncio.create_task(leave(leavers, chance.uniform(0, 0.4))) for _ in range(200)]
            count += sum(await asyncio.gather(*wave))
    await quiet(rig)
    inferred = rig.inferred()
    wasted = sum(call.refusal == "CANCELLED" and call.colour in inferred for call in leavers.calls)
    rig.inject(f"{count:,} cancelled, {wasted:,} of them inferred", recovers=False)
    rig.expect(wasted < count / 2, f"{wasted} of {count} were inferred for nobody")


async def leave(crowd: Crowd, after_s: float) -> bool:
    """Make a call and leave; return whether it was before the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(after_s):
            await crowd.predict()
            return False
    return True
