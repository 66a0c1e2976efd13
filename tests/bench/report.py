"""Results as text: for the terminal, and as tables for the document."""

from collections.abc import Iterable, Sequence
from typing import Final

from tests.bench.figures import shown, significant, spread
from tests.bench.results import Line, Outcome, Results, Run

RUN_HEADS: Final = (
    "load",
    "who",
    "calls in flight",
    "per second",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU ms per request",
    "RSS MiB",
)
LINE_HEADS: Final = ("what must hold", "target", "seen: median [min - max]", "", "command")
TEXT_COLUMNS: Final = 2
"""So many columns are words; numbers in the others are aligned at the right."""

Rows = Sequence[Sequence[str]]


def line_cells(outcome: Outcome, line: Line) -> list[str]:
    """Return a thing that must hold, with the judgement that follows from its numbers."""
    values = [each.value for each in line.counted]
    verdict = "reached" if line.is_reached else "**not reached**"
    if line.is_disturbed:
        verdict += ", disturbed"
    return [
        line.what,
        f"{line.bound} {line.target:g}{line.unit}",
        (shown(values) if len(values) > 1 else significant(values[0])) + line.unit,
        verdict,
        f"`{outcome.command}`",
    ]


def line_rows(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """Return all that must hold."""
    return [line_cells(outcome, line) for outcome in outcomes for line in outcome.lines]


def run_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Return one row for each load on each side: what its rounds gave."""
    groups: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.label, run.side, run.concurrency), []).append(run)
    # All rounds of all sides, if a side has no calm one: calm ones of the others, beside
    # disturbed ones of that, would compare nothing.
    disturbed = {
        (label, concurrency)
        for (label, _, concurrency), group in groups.items()
        if not any(map(is_calm, group))
    }
    return [
        [
            *(label, side, str(concurrency)),
            *run_cells(group, are_all=(label, concurrency) in disturbed),
        ]
        for (label, side, concurrency), group in groups.items()
    ]


def is_calm(run: Run) -> bool:
    """Return whether it was not disturbed."""
    return not run.disturbance.is_too_much


def run_cells(group: Sequence[Run], *, are_all: bool) -> list[str]:
    """Return the numbers of the rounds of one load.

    Args:
        group: its runs.
        are_all: whether disturbed ones count as well.
    """
    calm = list(group) if are_all else list(filter(is_calm, group))

    def median(values: Iterable[float]) -> str:
        return significant(spread(list(values)).median)

    least, middle, most = map(significant, spread([run.rate for run in calm]))
    disturbed = len(group) - sum(map(is_calm, group))
    return [
        f"{middle} [{least} - {most}]" + (f", {disturbed} disturbed" if disturbed else ""),
        median(run.p50_ms for run in calm),
        median(run.p99_ms for run in calm),
        median(run.p999_ms for run in calm),
        ", ".join(f"{name} {median(run.cpu_ms[name] for run in calm)}" for name in calm[0].cpu_ms),
        ", ".join(f"{name} {median(run.rss_mb[name] for run in calm)}" for name in calm[0].rss_mb),
    ]


def text_table(heads: Sequence[str], rows: Rows) -> str:
    """Return a table for a terminal."""
    every = [list(heads), *map(list, rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    )


def text_report(outcomes: Sequence[Outcome]) -> str:
    """Return all that was found, for a terminal."""
    parts = []
    for outcome in outcomes:
        parts.append(f"{outcome.scenario}: {outcome.title} ({outcome.took_s:.0f} s)")
        if outcome.runs:
            parts.append(text_table(RUN_HEADS, run_rows(outcome.runs)))
        parts += [f"{each.title}\n{text_table(each.heads, each.rows)}" for each in outcome.tables]
        parts += outcome.notes
    if rows := line_rows(outcomes):
        parts.append(text_table(LINE_HEADS, rows))
    return "\n\n".join(parts)


def markdown_table(heads: Sequence[str], rows: Rows) -> str:
    """Return a table for the document."""
    aligns = ["---" if column < TEXT_COLUMNS else "--:" for column in range(len(heads))]
    cells = [list(heads), aligns, *map(list, rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def conditions(outcome: Outcome) -> str:
    """Return under what conditions a scenario was measured, in one paragraph."""
    machine = outcome.machine
    settings = "; ".join(f"{name}: {value}" for name, value in outcome.settings.items())
    dirty = " with uncommitted changes" if outcome.is_dirty else ""
    return (
        f"`{outcome.command}`, commit `{outcome.commit}`{dirty},"
        f" {outcome.began:%Y-%m-%d %H:%M} UTC, {outcome.took_s:.0f} s."
        f" {machine.processor}, {machine.cores} cores, {machine.memory_gb:g} GiB;"
        f" {machine.system}; Python {machine.python}; {machine.redis}."
        f" {settings}."
    )


def packages(results: Results) -> str:
    """Return the versions of the packages that matter, of the latest outcome."""
    latest = max(results.outcomes.values(), key=lambda outcome: outcome.began)
    return ", ".join(f"{name} {number}" for name, number in latest.machine.packages.items())
