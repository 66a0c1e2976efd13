"""What jobs and time cost in memory."""

import asyncio
import signal
from statistics import mean
from typing import Any, Final

import grpc

from dispatch import keys
from dispatch.jobs import Priority
from prediction.v1 import prediction_pb2_grpc
from tests.bench.bench import Bench, calm, system_side
from tests.bench.figures import growth, significant
from tests.bench.loads import Unary
from tests.bench.payloads import payload, request, write_body
from tests.bench.results import Bound, Table, Value
from tests.bench.rig import Rig
from tests.bench.scenarios import scenario

WAITING: Final = 500
FIELDS_TARGET_BYTES: Final = 400
IMAGE: Final = payload(100)
IMAGE_FIELD: Final = b"image"
ANSWER_S: Final = 30.0

SAMPLES: Final = 60
GROWTH_TARGET: Final = 1.05


@scenario("fields", "What a queued job costs in Redis, beside its image", needs_h2load=False)
async def fields(bench: Bench) -> None:
    """Look at jobs that no worker takes, as it is suspended for a moment."""
    async with bench.rig() as rig:
        _, worker = await rig.no_op()
        async with grpc.aio.insecure_channel(rig.address) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            before = used_memory(rig)
            worker.send(signal.SIGSTOP)
            try:
                calls = [stub.Predict(request(IMAGE), timeout=ANSWER_S) for _ in range(WAITING)]
                await rig.until(lambda: rig.entries() == WAITING, ANSWER_S)
                rows, own, counted = looked_at(rig)
                taken = (used_memory(rig) - before) / WAITING - len(IMAGE)
            finally:
                worker.send(signal.SIGCONT)
            await asyncio.gather(*calls)
    rows.append(["all, as Redis allocates it (`used_memory`)", significant(taken)])
    rows.append(["counted in the limit on bytes", significant(counted)])
    bench.tables.append(
        Table(title="Of one waiting call, beside its image", heads=["what", "bytes"], rows=rows)
    )
    what = "our own fields of a queued job"
    bench.must(what, Bound.AT_MOST, FIELDS_TARGET_BYTES, " bytes", [calm(own)])
    what = "what the limit on bytes counts for them, of what they are"
    bench.must(what, Bound.AT_LEAST, 1, " x", [calm(counted / own)])


def looked_at(rig: Rig) -> tuple[list[list[str]], float, float]:
    """Return the parts of a job, their sum, and what is counted for it, bytes on average."""
    with rig.redis.client() as client:
        stream = keys.jobs(rig.model, Priority.NORMAL)
        entries: list[Any] = client.xrange(stream)
        pointers = list(client.scan_iter(match=keys.job(rig.model, "*").encode(), count=1000))
        values = client.mget(pointers)
        counted = int(client.hget(keys.load(rig.model), "bytes") or 0) / len(entries)
    names = entries[0][1].keys()
    parts = {
        f"field `{name.decode()}`" + (", its name" if name == IMAGE_FIELD else ""): mean(
            len(name) + (0 if name == IMAGE_FIELD else len(entry[name])) for _, entry in entries
        )
        for name in names
    }
    parts["id of the entry"] = 16.0
    parts["key that finds it, and its value"] = mean(
        len(key) + len(value) for key, value in zip(pointers, values, strict=True)
    )
    rows = [[what, significant(size)] for what, size in parts.items()]
    return rows, sum(parts.values()), counted - len(IMAGE)


def used_memory(rig: Rig) -> int:
    """Return how much memory Redis has given out, bytes."""
    with rig.redis.client() as client:
        return int(client.info("memory")["used_memory"])


@scenario("soak", "The front-end's memory over a long time at load", is_long=True)
async def soak(bench: Bench) -> None:
    minutes = bench.options.minutes
    bench.settings["minutes"] = f"{minutes:g}"
    bench.settings["load"] = "h2load, 4 connections, 10 KB, 64 calls in flight"
    async with bench.rig() as rig:
        front_end, worker = await rig.no_op()
        pids = {"front-end": [front_end.pid], "worker": [worker.pid]}
        body = write_body(rig.folder / "body", request(payload(10_000)))
        load = Unary(system_side(rig, pids), "10 KB", body, 64)
        bench.interleave([load], rounds=SAMPLES, seconds=minutes * 60 / SAMPLES)
        await rig.check_answers(rig.address)
    rows = []
    for name in bench.runs[0].rss_mb:
        sizes = [run.rss_mb[name] for run in bench.runs]
        ends = (sizes[0], sizes[len(sizes) // 4], sizes[len(sizes) // 2], sizes[-1])
        rows.append([name, *map(significant, ends), significant(growth(sizes))])
    heads = ["process", "after one load", "after 1/4", "after 1/2", "at the end", "growth"]
    bench.tables.append(Table(title="Resident memory, MiB", heads=heads, rows=rows))
    grown = growth([run.rss_mb["front-end"] for run in bench.runs])
    what = f"RSS of the front-end after {minutes:g} minutes at load, of that after a quarter"
    bench.must(what, Bound.AT_MOST, GROWTH_TARGET, " x", [Value(value=grown)])
