"""The list of scenarios, and how one is run."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tests.bench.bench import Bench, Options
from tests.bench.machine import commit, machine
from tests.bench.results import Outcome

Body = Callable[[Bench], Awaitable[None]]


class NotMeasured(Exception):
    """Something that the scenario needs is not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Something to measure."""

    name: str
    title: str
    body: Body
    is_long: bool
    """Run only when it is named."""

    needs_h2load: bool
    has_targets: bool
    """Whether it says what must hold."""

    is_curve: bool
    """Whether its loads differ in the calls in flight, and are drawn."""


SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(
    name: str,
    title: str,
    *,
    is_long: bool = False,
    needs_h2load: bool = True,
    has_targets: bool = True,
    is_curve: bool = False,
) -> Callable[[Body], Body]:
    """Put a scenario on the list.

    Args:
        name: what `make bench BENCH=` calls it.
        title: heads its section.
        is_long: whether it is run only when it is named.
        needs_h2load: whether that makes its load.
        has_targets: whether it says what must hold.
        is_curve: whether it is drawn.
    """

    def add(body: Body) -> Body:
        SCENARIOS[name] = Scenario(
            name=name,
            title=title,
            body=body,
            is_long=is_long,
            needs_h2load=needs_h2load,
            has_targets=has_targets,
            is_curve=is_curve,
        )
        return body

    return add


async def run(chosen: Scenario, options: Options, *, say: Callable[[str], None]) -> Outcome:
    """Measure one scenario.

    Raises:
        NotMeasured: something that it needs is not here.
        LoadFailed: something was not answered, so there are no figures.
    """
    bench = Bench(options, say)
    bench.settings = {"rounds": str(options.rounds), "seconds": f"{options.seconds:g}"}
    began, clock = datetime.now(UTC), time.monotonic()
    name, is_dirty = commit()
    await chosen.body(bench)
    return Outcome(
        scenario=chosen.name,
        title=chosen.title,
        commit=name,
        is_dirty=is_dirty,
        began=began.replace(microsecond=0),
        took_s=round(time.monotonic() - clock, 1),
        machine=machine(bench.redis),
        settings=bench.settings,
        runs=bench.runs,
        lines=bench.lines,
        tables=bench.tables,
        notes=bench.notes,
    )
