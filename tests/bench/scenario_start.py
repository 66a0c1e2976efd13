"""How long it takes until a process can be used."""

from collections.abc import Callable
from typing import Final

from tests.bench.bench import Bench
from tests.bench.figures import significant, spread
from tests.bench.payloads import model_directory
from tests.bench.results import Bound, Table, Value
from tests.bench.rig import READY_S, Rig
from tests.bench.scenario_model import ENGINES, can_serve
from tests.bench.scenarios import scenario
from tests.bench.usage import Meter
from tests.processes import Process
from worker.bundled.spec import NAME

ROUNDS: Final = 3
FRONT_END_S: Final = 1.0
WORKER_S: Final = {"tensorflow": 10.0, "litert": 2.0, "openvino": 2.0}


@scenario("start", "How long a front-end and workers take until they are ready", needs_h2load=False)
async def start(bench: Bench) -> None:
    """Start each once before, so that files are in the cache and models prepared."""
    bench.settings["ready"] = "until `serving` or `worker ready` is in the log; models are prepared"
    async with bench.rig() as rig:
        starters: dict[str, Callable[[], Process]] = {"front-end": rig.front_end}
        directory = model_directory(rig.folder)
        starters["worker, null"] = lambda: rig.worker(directory)
        for engine in filter(can_serve, ENGINES):
            starters[f"worker, {engine}"] = engine_starter(rig, engine)
        for starter in starters.values():
            taken(starter)
        found: dict[str, list[Value]] = {name: [] for name in starters}
        for _ in range(min(bench.options.rounds, ROUNDS)):
            for name, starter in starters.items():
                found[name].append(taken(starter))
                bench.say(f"    {name:24} {found[name][-1].value:.2f} s")
    rows = [
        [name, *(significant(each) for each in spread([value.value for value in values]))]
        for name, values in found.items()
    ]
    heads = ["process", "least, s", "median, s", "most, s"]
    bench.tables.append(Table(title="Start-up", heads=heads, rows=rows))
    what = "front-end ready"
    bench.must(what, Bound.AT_MOST, FRONT_END_S, " s", found["front-end"])
    for engine, target in WORKER_S.items():
        if values := found.get(f"worker, {engine}"):
            what = f"worker ready, EfficientNet-Lite0, {engine}"
            bench.must(what, Bound.AT_MOST, target, " s", values)


def engine_starter(rig: Rig, engine: str) -> Callable[[], Process]:
    """Return what starts a worker of the bundled model."""
    return lambda: rig.worker(NAME, engine=engine)


def taken(starter: Callable[[], Process]) -> Value:
    """Return how long a process takes until it is ready, seconds; it is ended then."""
    with Meter({}) as meter:
        process = starter()
        try:
            process.wait_for_line("serving|worker ready", READY_S)
            took_s = meter.so_far_s
        finally:
            process.terminate()
    # What the process took is known, as it has ended: that of children is told then.
    return Value(value=round(took_s, 3), disturbance=meter.disturbance)
