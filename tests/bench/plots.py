"""Throughput and latency against calls in flight, as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.figures import spread
from tests.bench.results import Outcome, Run, undisturbed

SIZE_INCHES: Final = (9.0, 3.6)
DOTS_PER_INCH: Final = 110
COLOURS: Final = ("#1f77b4", "#7f7f7f", "#d62728", "#2ca02c")

# The same numbers make the same file, whenever and wherever it is made.
mpl.rcParams["svg.hashsalt"] = "despacho"


def plot(outcome: Outcome, path: Path) -> None:
    """Draw the runs of a scenario: medians of the rounds, and from the least to the greatest."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    throughput, latency = figure.subplots(1, 2)
    sides = list(dict.fromkeys(run.side for run in outcome.runs))
    for side, colour in zip(sides, COLOURS, strict=False):
        runs = undisturbed([run for run in outcome.runs if run.side == side])
        _draw(throughput, runs, "rate", colour, label=side)
        _draw(latency, runs, "p50_ms", colour, label=f"{side}, p50")
        _draw(latency, runs, "p99_ms", colour, label=f"{side}, p99", style="--")
    throughput.set(title=outcome.runs[0].label, ylabel="answers per second", ylim=(0, None))
    latency.set(title=outcome.runs[0].label, ylabel="milliseconds", yscale="log")
    ticks = sorted({run.concurrency for run in outcome.runs})
    for axes in (throughput, latency):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("calls in flight")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def _draw(
    axes: Any, runs: Sequence[Run], what: str, colour: str, *, label: str, style: str = "-"
) -> None:
    counts = sorted({run.concurrency for run in runs})
    spreads = [
        spread([getattr(run, what) for run in runs if run.concurrency == count]) for count in counts
    ]
    middle = [each.median for each in spreads]
    axes.plot(counts, middle, style, marker=".", color=colour, label=label)
    least, most = [each.least for each in spreads], [each.most for each in spreads]
    axes.fill_between(counts, least, most, color=colour, alpha=0.15, linewidth=0)
