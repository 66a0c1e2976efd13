"""The relay alone: no model, beside a gRPC server that does nothing else."""

from collections.abc import Sequence
from typing import Final

from tests.bench.bench import (
    Bench,
    added_p50_ms,
    compared,
    rate_ratio,
    system_side,
)
from tests.bench.loads import Side, Stream, Unary
from tests.bench.payloads import payload, request, write_body
from tests.bench.results import Bound, Run
from tests.bench.rig import Rig
from tests.bench.scenarios import scenario

SIZES: Final = {"10 KB": 10_000, "100 KB": 100_000}
TARGETS: Final = {"10 KB": 0.80, "100 KB": 0.55}
CPU_LABEL: Final = "10 KB"
AT_LOAD: Final = 64
CURVE: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CURVE_SECONDS: Final = 1.5
SYSTEM: Final = ("front-end", "worker", "Redis")
ECHO: Final = "bare echo"


async def sides(bench: Bench, rig: Rig) -> tuple[Side, Side]:
    """Start both; return the system and the echo when they answer rightly."""
    front_end, worker = await rig.no_op()
    ours = system_side(rig, {"front-end": [front_end.pid], "worker": [worker.pid]})
    process, address = rig.echo()
    for checked_address in (ours.address, address):
        await rig.check_answers(checked_address)
    bench.settings["load"] = "h2load, 4 connections, requests without a deadline"
    bench.settings["metrics"] = "served, not scraped"
    return ours, Side(ECHO, address, {"echo": [process.pid]})


def unary(rig: Rig, side: Side, label: str, concurrency: int) -> Unary:
    """Return unary calls with a payload of a size."""
    body = rig.folder / f"body-{SIZES[label]}"
    if not body.exists():
        write_body(body, request(payload(SIZES[label])))
    return Unary(side, label, body, concurrency)


@scenario("relay", "No model: the relay beside a bare gRPC echo, unary")
async def relay(bench: Bench) -> None:
    async with bench.rig() as rig:
        both = await sides(bench, rig)
        rounds = bench.interleave([unary(rig, side, "10 KB", 1) for side in both])
        added = compared(rounds, added_p50_ms)
        bench.must("no-op 10 KB, c=1, added p50", Bound.AT_MOST, 0.4, " ms", added)
        # The largest last: Redis may rewrite its file for a while after it.
        for label, target in TARGETS.items():
            rounds = bench.interleave([unary(rig, side, label, AT_LOAD) for side in both])
            ratios = compared(rounds, rate_ratio)
            bench.must(f"no-op {label}, c=64, of a bare echo", Bound.AT_LEAST, target, " x", ratios)
            if label == CPU_LABEL:
                cpu(bench, rounds)
        await rig.check_answers(both[0].address)


def cpu(bench: Bench, rounds: Sequence[Sequence[Run]]) -> None:
    """Note what the parts of the system take for a request."""
    used = compared(rounds, lambda ours, _: sum(ours.cpu_ms[name] for name in SYSTEM))
    what = "no-op 10 KB, c=64, CPU of front-end, worker and Redis"
    bench.must(what, Bound.AT_MOST, 0.45, " ms per request", used)


@scenario("stream", "No model: one bidirectional stream beside a bare bidirectional echo")
async def stream(bench: Bench) -> None:
    async with bench.rig() as rig:
        both = await sides(bench, rig)
        bench.settings["load"] = "grpc.aio in a process of its own, one stream, 64 in flight"
        loads = [Stream(side, "10 KB, stream", SIZES["10 KB"], AT_LOAD) for side in both]
        rounds = bench.interleave(loads)
        ratios = compared(rounds, rate_ratio)
        what = "no-op 10 KB, one stream, of a bare bidirectional echo"
        bench.must(what, Bound.AT_LEAST, 0.55, " x", ratios)


@scenario(
    "relay-curve",
    "No model: throughput and latency against calls in flight",
    has_targets=False,
    is_curve=True,
)
async def relay_curve(bench: Bench) -> None:
    async with bench.rig() as rig:
        both = await sides(bench, rig)
        for concurrency in CURVE:
            loads = [unary(rig, side, "10 KB", concurrency) for side in both]
            bench.interleave(loads, rounds=2, seconds=min(CURVE_SECONDS, bench.options.seconds))
