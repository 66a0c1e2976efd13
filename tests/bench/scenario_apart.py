"""The bundled model on one core, and all else on another one.

Shows what the relay takes from a model when both need not share a core. A machine with two cores
has room for one process of the model then, and decode and model in process have that core, too.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.bench.bench import Bench, compared, rate_ratio, values_shown
from tests.bench.limit import Pool
from tests.bench.loads import Unary
from tests.bench.payloads import request, write_body
from tests.bench.results import Run, Table
from tests.bench.scenario_model import (
    AT_LOAD,
    LABEL,
    PHOTO,
    best_limit,
    check_best,
    engines_here,
    served,
)
from tests.bench.scenarios import NotMeasured, scenario

CORES_NEEDED: Final = 2


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Let what is started inside run on one core only."""
    assert sys.platform == "linux"  # nowhere else a program can be told where to run
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> tuple[int, int]:
    """Return a core for the model and one for all else."""
    if sys.platform != "linux" or len(cores := sorted(os.sched_getaffinity(0))) < CORES_NEEDED:
        raise NotMeasured("two cores are needed, and Linux")
    return cores[0], cores[1]


@scenario(
    "model-apart",
    "EfficientNet-Lite0 on one core, and the load, the front-end and Redis on another",
    is_long=True,
    has_targets=False,
)
async def model_apart(bench: Bench) -> None:
    of_model, of_all_else = two_cores()
    rows = []
    for engine in engines_here():
        with on_core(of_all_else):
            rounds = await beside_limit(bench, engine, of_model)
        rows.append([engine, values_shown(compared(rounds, rate_ratio))])
    title = "Images per second, of decode and model in process on that core"
    bench.tables.append(Table(title=title, heads=["engine", "median [min - max]"], rows=rows))


async def beside_limit(bench: Bench, engine: str, core: int) -> list[list[Run]]:
    """Compare the system, whose worker has a core, with decode and model alone on that core."""
    async with (
        bench.rig() as rig,
        served(bench, rig, engine, around_worker=on_core(core)) as system,
    ):
        with ExitStack() as stack:
            with on_core(core):
                pool = stack.enter_context(Pool(engine, processes=1, threads=1, photo=PHOTO))
            limit = best_limit(bench, [pool])
            limit.label = f"{LABEL}, {engine}"
            body = write_body(rig.folder / "photo", request(PHOTO.read_bytes()))
            load = Unary(system.side, limit.label, body, AT_LOAD)
            rounds = bench.interleave([load, limit])
            check_best(system, limit)
    bench.settings["WORKER_ENGINE"] = "each in turn"
    return rounds
