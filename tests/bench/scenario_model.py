"""The bundled model, beside decode and model in process with the same engine."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Final

import grpc

from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from tests.bench.bench import Bench, added_p50_ms, compared, rate_ratio, system_side
from tests.bench.figures import significant
from tests.bench.h2load import LoadFailed
from tests.bench.limit import InProcess, Pool, quickest_alone, trials
from tests.bench.loads import Side, Unary
from tests.bench.payloads import request, write_body
from tests.bench.results import Bound, Table
from tests.bench.rig import Rig
from tests.bench.scenarios import Body, NotMeasured, scenario
from tests.processes import ROOT
from worker.bundled.spec import NAME
from worker.machine import usable_cores
from worker.model_directory import open_model
from worker.processes import process_count
from worker.settings import WorkerSettings
from worker.tune import store

PHOTO: Final = ROOT / "docs" / "examples" / "coffee.jpg"
LABEL: Final = f"photo, {PHOTO.stat().st_size / 1000:.0f} KB"
AT_LOAD: Final = 32
CURVE: Final = (1, 2, 4, 8, 16, 32, 64)
CURVE_SECONDS: Final = 2.0
CURVE_ROUNDS: Final = 2
CURVE_ENGINES: Final = ("tensorflow", "auto")
PACKAGES: Final = {"litert": "ai_edge_litert", "openvino": "openvino"}
ENGINES: Final = ("tensorflow", "litert", "openvino", "auto")


@dataclass(frozen=True, slots=True)
class Served:
    """The system, serving the model."""

    side: Side
    engine: str
    """What runs it; of `auto`: what that chose."""

    best: int
    """The class that it finds in the photo."""


@asynccontextmanager
async def served(
    bench: Bench,
    rig: Rig,
    engine: str,
    *,
    around_worker: AbstractContextManager[None] | None = None,
) -> AsyncIterator[Served]:
    """Enter the system with a worker as it is by default, but for the engine.

    Args:
        bench: told what is not as by default.
        rig: to start it in.
        engine: of the worker.
        around_worker: entered while the worker is started; None: nothing.
    """
    front_end = rig.front_end()
    with around_worker or nullcontext():
        worker = rig.worker(NAME, engine=engine)
        processes = process_count(WorkerSettings())
    # The other processes of a worker start when its first is ready.
    await rig.until_served(processes, NAME)
    pids = {"front-end": [front_end.pid], "worker": [worker.pid]}
    bench.settings["WORKER_ENGINE"] = engine
    bench.settings["load"] = "h2load, 4 connections; " + LABEL
    bench.settings["metrics"] = "served, not scraped"
    if engine == "auto":
        said = [json.loads(line) for line in worker.log.splitlines() if '"engine chosen"' in line]
        bench.notes += [f"`auto` chose {each['engine']}: {each['reason']}." for each in said[:1]]
    async with grpc.aio.insecure_channel(rig.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        answer = await stub.Predict(request(PHOTO.read_bytes()), timeout=30)
        card = await stub.GetModel(pb.GetModelRequest(name=NAME))
    (best,) = answer.predictions
    yield Served(system_side(rig, pids), card.model.engine, best.class_id)


@contextmanager
def pools_of(engine: str) -> Iterator[list[Pool]]:
    """Enter the two ways to use all cores: many processes, and many threads."""
    cores = usable_cores()
    with (
        Pool(engine, processes=cores, threads=1, photo=PHOTO) as of_processes,
        Pool(engine, processes=1, threads=cores, photo=PHOTO) as of_threads,
    ):
        yield [of_processes, of_threads]


def best_limit(bench: Bench, pools: list[Pool]) -> InProcess:
    """Try the ways to run an engine in process; return the fastest, and note all."""
    rates = trials(pools)
    rows = [
        [
            f"{pools[index].processes} x {pools[index].threads}",
            str(batch),
            significant(rate),
        ]
        for (index, batch), rate in rates.items()
    ]
    heads = ["processes x threads", "batch", "images per second"]
    title = f"Decode and model in process, {pools[0].engine}: short trials"
    bench.tables.append(Table(title=title, heads=heads, rows=rows))
    index, batch = max(rates, key=rates.__getitem__)
    return InProcess(pools[index], LABEL, batch)


def forget_choice() -> None:
    """Let `auto` measure anew, under the conditions of this run."""
    cache_dir = WorkerSettings().cache_dir
    spec = open_model(NAME, cache_dir, engine="auto")
    store.path_of(spec, cache_dir).unlink(missing_ok=True)


async def model(bench: Bench, engine: str) -> None:
    """Compare the system with its engine alone."""
    if not can_serve(engine):
        raise NotMeasured(f"no worker can use {engine}; `make install-engines` may help")
    if engine == "auto":
        forget_choice()
    async with bench.rig() as rig, served(bench, rig, engine) as system:
        with pools_of(system.engine) as pools:
            body = write_body(rig.folder / "photo", request(PHOTO.read_bytes()))
            limit = best_limit(bench, pools)
            rounds = bench.interleave([Unary(system.side, LABEL, body, AT_LOAD), limit])
            check_best(system, limit)
            name = engine if engine == system.engine else f"{engine}: {system.engine}"
            what = f"EfficientNet-Lite0, {name}, c=32, of decode and model in process"
            bench.must(what, Bound.AT_LEAST, 0.95, " x", compared(rounds, rate_ratio))
            alone = quickest_alone(pools, LABEL)
            rounds = bench.interleave([Unary(system.side, LABEL, body, 1), alone])
            check_best(system, alone)
            what = f"EfficientNet-Lite0, {name}, c=1, p50 added to decode and model in process"
            bench.must(what, Bound.AT_MOST, 1.5, " ms", compared(rounds, added_p50_ms))


def can_serve(engine: str) -> bool:
    """Return whether workers can be told to use an engine, and it is installed."""
    if engine == "tensorflow":
        return True
    has_choice = "engine" in WorkerSettings.model_fields
    return has_choice and (engine == "auto" or find_spec(PACKAGES[engine]) is not None)


def engines_here() -> list[str]:
    """Return the engines that can be measured, by their own names."""
    return [each for each in ENGINES if each != "auto" and can_serve(each)]


def check_best(system: Served, limit: InProcess) -> None:
    """Fail unless both found the same in the photo."""
    if system.best != limit.best:
        raise LoadFailed(f"the system finds class {system.best}, in process {limit.best}")


def of_engine(engine: str) -> Callable[[Bench], object]:
    """Return the scenario of one engine."""
    body: Body = partial(model, engine=engine)
    title = f"EfficientNet-Lite0 with {engine}, beside decode and model in process"
    return scenario(f"model-{engine}", title)(body)


for each in ENGINES:
    of_engine(each)


@scenario(
    "model-curve",
    "EfficientNet-Lite0: throughput and latency against calls in flight",
    has_targets=False,
    is_curve=True,
)
async def model_curve(bench: Bench) -> None:
    seconds = min(CURVE_SECONDS, bench.options.seconds)
    engines = list(filter(can_serve, CURVE_ENGINES))
    for engine in engines:
        async with bench.rig() as rig, served(bench, rig, engine) as system:
            body = write_body(rig.folder / "photo", request(PHOTO.read_bytes()))
            side = replace(system.side, name=f"Despacho, {engine}")
            for concurrency in CURVE:
                load = Unary(side, LABEL, body, concurrency)
                bench.interleave([load], rounds=CURVE_ROUNDS, seconds=seconds)
    bench.settings["WORKER_ENGINE"] = " and ".join(engines)
