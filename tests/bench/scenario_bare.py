"""The bundled model, beside the least that serves it over gRPC.

Shows how much of what the system loses to decode and model in process is gRPC's own share, and the
load generator's, of cores that the model wants for itself.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc

from prediction.v1 import prediction_pb2_grpc
from tests.bench.bench import Bench, added_p50_ms, compared, rate_ratio, values_shown
from tests.bench.h2load import LoadFailed
from tests.bench.limit import Pool, quickest_alone
from tests.bench.loads import Driven, Shared, Side, Unary
from tests.bench.payloads import request, write_body
from tests.bench.results import Table
from tests.bench.rig import Rig
from tests.bench.scenario_model import (
    AT_LOAD,
    LABEL,
    PHOTO,
    Served,
    best_limit,
    check_best,
    engines_here,
    pools_of,
    served,
)
from tests.bench.scenarios import scenario

HEADS: Final = ["", "Despacho", "bare servers"]


@scenario(
    "model-bare",
    "EfficientNet-Lite0 in bare gRPC servers, which have nothing else, beside the system",
    is_long=True,
    has_targets=False,
)
async def model_bare(bench: Bench) -> None:
    rows = []
    for engine in engines_here():
        async with bench.rig() as rig, served(bench, rig, engine) as system:
            body = write_body(rig.folder / "photo", request(PHOTO.read_bytes()))
            with pools_of(engine) as pools:
                rows += await beside_bare(bench, rig, system, pools, body)
    bench.settings["WORKER_ENGINE"] = "each in turn"
    title = "Beside decode and model in process"
    bench.tables.append(Table(title=title, heads=HEADS, rows=rows))


async def beside_bare(
    bench: Bench, rig: Rig, system: Served, pools: list[Pool], body: Path
) -> list[list[str]]:
    """Compare the system and bare servers with decode and model in process.

    Returns:
        Rows under `HEADS`: images per second at load, and what one call takes longer.
    """
    engine, label = system.engine, f"{LABEL}, {system.engine}"
    limit = replace(best_limit(bench, pools), label=label)
    processes, threads = limit.pool.processes, limit.pool.threads
    bare = await started(rig, system, processes=processes, threads=threads)
    addresses = [side.address for side in bare]
    pids = [pid for side in bare for pid in side.pids["server"]]
    name = f"bare servers: {processes} x {threads}, batch 1"
    together = Side(name, "", {"servers": pids})
    at_once: list[Driven] = [
        Unary(system.side, label, body, AT_LOAD),
        limit,
        Shared(together, label, body, AT_LOAD, addresses=addresses),
    ]
    rounds = bench.interleave(at_once)
    check_best(system, limit)
    at_load = [compared(rounds, rate_ratio, index, 1) for index in (0, 2)]
    alone = replace(quickest_alone(pools, label), label=label)
    (quick,) = await started(rig, system, processes=1, threads=alone.pool.threads)
    one_by_one: list[Driven] = [
        Unary(system.side, label, body, 1),
        alone,
        Unary(quick, label, body, 1),
    ]
    rounds = bench.interleave(one_by_one)
    check_best(system, alone)
    at_one = [compared(rounds, added_p50_ms, index, 1) for index in (0, 2)]
    return [
        [f"{engine}, c=32, times the images per second", *map(values_shown, at_load)],
        [f"{engine}, c=1, ms added to the p50", *map(values_shown, at_one)],
    ]


async def started(rig: Rig, system: Served, *, processes: int, threads: int) -> list[Side]:
    """Start bare servers, and compare an answer of each with the system's.

    Raises:
        LoadFailed: it is another one.
    """
    sides = []
    for _ in range(processes):
        process, address = rig.bare_server(system.engine, threads)
        async with grpc.aio.insecure_channel(address) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            answer = await stub.Predict(request(PHOTO.read_bytes()), timeout=30)
        if [each.class_id for each in answer.predictions] != [system.best]:
            raise LoadFailed("the bare server finds something else than the system")
        sides.append(Side(f"bare server: 1 x {threads}", address, {"server": [process.pid]}))
    return sides
