"""Servers that people would use instead, doing the same work on the same cores.

Each has our decoder and our engine in its processes of the model, of which there are as many as
there are cores, with a thread each: what is fastest. Only what stands around the model differs.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from tests.bench.bench import Bench, added_p50_ms, compared, rate_ratio, system_side, values_shown
from tests.bench.h2load import LoadFailed
from tests.bench.loads import Driven, Side, Unary
from tests.bench.payloads import payload, write_body
from tests.bench.peers.peer import PEERS, Peer, Told, predict, started, to_predict
from tests.bench.results import Run, Table
from tests.bench.rig import Rig
from tests.bench.scenario_model import LABEL, PHOTO, can_serve, served
from tests.bench.scenarios import Body, NotMeasured, scenario
from tests.bench.usage import family
from tests.environments import CannotInstall
from worker.machine import usable_cores

ENGINES: Final = ("null", "tensorflow", "openvino")


@dataclass(frozen=True, slots=True)
class Kind:
    """What is asked, and how peers are to do it."""

    engine: str
    label: str
    image: bytes

    at_load: int
    """Calls in flight."""

    told: Told


def kind_of(engine: str) -> Kind:
    """Return the work of an engine."""
    if engine == "null":
        # One process does nothing for all that a front can ask.
        told = Told(engine, workers=1, batch=8)
        return Kind(engine, "10 KB", payload(10_000), at_load=64, told=told)
    # As Despacho does it by itself.
    told = Told(engine, workers=usable_cores(), batch=4)
    return Kind(engine, LABEL, PHOTO.read_bytes(), at_load=32, told=told)


@asynccontextmanager
async def system_of(bench: Bench, rig: Rig, engine: str) -> AsyncIterator[Side]:
    """Enter the system with a worker of that engine."""
    if engine == "null":
        front_end, worker = await rig.no_op()
        yield system_side(rig, {"front-end": [front_end.pid], "worker": [worker.pid]})
    else:
        async with served(bench, rig, engine) as system:
            yield system.side


async def peers(bench: Bench, engine: str) -> None:
    """Compare the system with each peer in turn."""
    if engine != "null" and not can_serve(engine):
        raise NotMeasured(f"no worker can use {engine}; `make install-engines` may help")
    kind = kind_of(engine)
    rows: list[list[str]] = []
    async with bench.rig() as rig, system_of(bench, rig, engine) as system:
        body = write_body(rig.folder / "request", to_predict(kind.image))
        best = predict(system.address, kind.image)
        for peer in PEERS:
            try:
                rows += beside(bench, kind, peer, partial(Unary, system, kind.label, body), best)
            except CannotInstall as error:
                reason = str(error).strip().splitlines()[-1]
                bench.notes.append(f"{peer.title} could not be installed: {reason}.")
    bench.settings["load"] = f"h2load; {kind.label}, the best five classes"
    bench.settings["peers"] = f"{kind.told.workers} processes of the model, a thread each"
    heads = [
        "",
        f"images per second, c={kind.at_load}, of those of Despacho",
        "p50 ms, c=1, more than Despacho",
    ]
    bench.tables.append(Table(title="Beside Despacho", heads=heads, rows=rows))


def beside(
    bench: Bench, kind: Kind, peer: Peer, ask_system: Callable[[int], Driven], best: int
) -> list[list[str]]:
    """Compare the system with one peer that lets images wait for others, and one that does not.

    Returns:
        A row of the table for each.

    Raises:
        LoadFailed: it finds something else than the system, `best`.
    """
    sizes = [kind.told.batch, 1] if peer.can_batch else [1]
    with ExitStack() as stack:
        sides = []
        body = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))) / "body"
        body.write_bytes(peer.body(kind.image))
        for size in sizes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-")))
            told = Told(kind.engine, kind.told.workers, size)
            side = stack.enter_context(started(peer, told, folder, kind.image))
            if (found := peer.answer(side.address, kind.image)) != best:
                raise LoadFailed(f"{peer.title} finds class {found}, the system {best}")
            sides.append(side)

        def loads(in_flight: int) -> list[Driven]:
            return [
                Undisturbed(ask_system(in_flight), sides),
                *(
                    Undisturbed(
                        Unary(side, kind.label, body, in_flight, target=peer.target),
                        [other for other in sides if other is not side],
                    )
                    for side in sides
                ),
            ]

        at_load, alone = bench.interleave(loads(kind.at_load)), bench.interleave(loads(1))
    return [
        [
            side.name,
            shown_beside(at_load, rate_ratio, index),
            shown_beside(alone, added_p50_ms, index),
        ]
        for index, side in enumerate(sides, 1)
    ]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A load while other sides are stopped: some take a tenth of the cores unasked."""

    load: Driven
    others: Sequence[Side]

    def run(self, number: int, seconds: float) -> Run:
        """Make the load for about so long."""
        with stopped(self.others):
            return self.load.run(number, seconds)

    def warm_up(self) -> None:
        """Make a little of it."""
        with stopped(self.others):
            self.load.warm_up()


@contextmanager
def stopped(sides: Sequence[Side]) -> Iterator[None]:
    """Inside, no process of these sides runs."""
    processes = [
        process
        for side in sides
        for pids in side.pids.values()
        for pid in pids
        for process in family(pid)
    ]
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def shown_beside(
    rounds: Sequence[Sequence[Run]], by: Callable[[Run, Run], float], index: int
) -> str:
    """Return how a side compares with the first."""
    return values_shown(compared(rounds, by, index, 0))


def of_engine(engine: str) -> None:
    """Put the scenario of one engine on the list."""
    body: Body = partial(peers, engine=engine)
    what = "without a model" if engine == "null" else f"EfficientNet-Lite0 with {engine}"
    title = f"Other servers beside the system, {what}"
    scenario(f"peers-{engine}", title, is_long=True, has_targets=False)(body)


for each in ENGINES:
    of_engine(each)
