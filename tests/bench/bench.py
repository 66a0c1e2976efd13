"""What a scenario measures with, and where it puts what it found."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from tests.bench.figures import shown, significant
from tests.bench.h2load import LoadFailed
from tests.bench.loads import Driven, Side
from tests.bench.machine import redis_version
from tests.bench.results import Bound, Disturbance, Line, Run, Table, Value, counted
from tests.bench.rig import Rig
from tests.redis_server import RedisServer


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    rounds: int
    seconds: float
    """Of one load."""

    minutes: float
    """Of the scenario that looks for growth."""


@dataclass(slots=True)
class Bench:
    """Runs loads in turn, and collects."""

    options: Options
    say: Callable[[str], None]
    """Tells the person who waits."""

    runs: list[Run] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    redis: str = ""

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        """Enter a system of its own, with Redis started."""
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            async with Rig(RedisServer(folder), folder) as rig:
                self.redis = await asyncio.to_thread(redis_version, rig.redis)
                try:
                    yield rig
                except Exception:
                    self.say(rig.last_words())
                    raise
                self.settings |= rig.settings

    def interleave(
        self, loads: Sequence[Driven], *, rounds: int = 0, seconds: float = 0
    ) -> list[list[Run]]:
        """Make each load in each round; return the runs of each round, in the order of `loads`.

        Every other round goes backwards, so that none is always the one that comes first.

        Args:
            loads: what to compare.
            rounds: how many; 0: as the command line says.
            seconds: of one load; 0: as the command line says.
        """
        for load in loads:
            load.warm_up()
        found = []
        for number in range(rounds or self.options.rounds):
            order = list(enumerate(loads))
            if number % 2:
                order.reverse()
            runs = {
                index: self._run(load, number, seconds or self.options.seconds)
                for index, load in order
            }
            found.append([runs[index] for index in range(len(loads))])
        return found

    def _run(self, load: Driven, number: int, seconds: float) -> Run:
        try:
            run = load.run(number, seconds)
        except LoadFailed as error:
            # Once may be the fault of the machine; whoever reads the results has to know.
            self.say(f"    once more: {error}")
            reason = str(error).partition("\n")[0]
            self.notes.append(f"A load in round {number + 1} was made again: {reason}.")
            run = load.run(number, seconds)
        self.runs.append(run)
        disturbance = run.disturbance
        remark = (
            f"  disturbed: steal {disturbance.steal:.0%}, foreign {disturbance.foreign:.0%}"
            if disturbance.is_too_much
            else ""
        )
        self.say(
            f"    {run.label:20} {run.side:24} c={run.concurrency:<4}"
            f"{significant(run.rate):>8}/s  p50 {significant(run.p50_ms)} ms"
            f"  p99 {significant(run.p99_ms)} ms{remark}"
        )
        return run

    @property
    def cores(self) -> int:
        """Of this machine."""
        return psutil.cpu_count() or 1

    def must(
        self, what: str, bound: Bound, target: float, unit: str, values: Sequence[Value]
    ) -> None:
        """Note something that must hold."""
        line = Line(what=what, bound=bound, target=target, unit=unit, values=list(values))
        self.lines.append(line)
        verdict = "reached" if line.is_reached else "NOT REACHED"
        self.say(f"  {verdict}: {what}: {significant(line.seen.median)}{unit}")


def compared(
    rounds: Sequence[Sequence[Run]],
    by: Callable[[Run, Run], float],
    first: int = 0,
    second: int = 1,
) -> list[Value]:
    """Return one value for each round, made of two of its runs."""
    return [
        Value(
            value=by(runs[first], runs[second]),
            disturbance=runs[first].disturbance.worse(runs[second].disturbance),
        )
        for runs in rounds
    ]


def values_shown(values: Sequence[Value]) -> str:
    """Return the spread of the rounds that count, and say so if those are not all, or disturbed."""
    found = counted(values)
    text = shown([each.value for each in found])
    if all(each.disturbance.is_too_much for each in found):
        return f"{text}, disturbed"
    return text if len(found) == len(values) else f"{text}, {len(found)} of {len(values)} rounds"


def rate_ratio(ours: Run, theirs: Run) -> float:
    """Return how many times as many requests per second."""
    return ours.rate / theirs.rate


def added_p50_ms(ours: Run, theirs: Run) -> float:
    """Return how much longer half of the calls take at least."""
    return ours.p50_ms - theirs.p50_ms


def system_side(
    rig: Rig,
    pids: Mapping[str, Sequence[int]],
    *,
    name: str = "Despacho",
    address: str = "",
    model: str = "",
) -> Side:
    """Return the system as a side, with its books.

    Args:
        rig: has started it.
        pids: ids of its processes by name, without Redis.
        name: what the table calls it.
        address: of the front-end; empty: of the one started last.
        model: whose books; empty: the rig's.
    """
    return Side(
        name=name,
        address=address or rig.address,
        pids={**pids, "Redis": [rig.redis.pid]},
        totals=partial(rig.totals, model or rig.model),
    )


def calm(value: float) -> Value:
    """Return a value that does not depend on time."""
    return Value(value=value, disturbance=Disturbance())
