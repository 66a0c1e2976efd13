"""Writes `docs/benchmarks.md` and its plots from the results that are kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.catalogue import SCENARIOS
from tests.bench.plots import plot
from tests.bench.report import (
    LINE_HEADS,
    RUN_HEADS,
    conditions,
    line_rows,
    markdown_table,
    packages,
    run_rows,
)
from tests.bench.results import Outcome, Results

BEGIN: Final = "<!-- bench: begin -->\n"
END: Final = "<!-- bench: end -->\n"


def write_document(path: Path, plots: Path, results: Results) -> None:
    """Put what was measured between its two marks in the document, and draw the plots.

    Args:
        path: of the document, with the marks.
        plots: folder for the pictures, beside the document.
        results: what is kept.
    """
    for outcome in drawn(results):
        plot(outcome, plots / f"{outcome.scenario}.png")
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = f"{before}{BEGIN}\n{generated(results, plots.name)}\n{END}{after}"
    path.write_text(text, encoding="utf-8")


def drawn(results: Results) -> list[Outcome]:
    """Return the outcomes that are pictures."""
    return [each for each in ordered(results) if SCENARIOS[each.scenario].is_curve]


def ordered(results: Results) -> list[Outcome]:
    """Return what was measured, in the order of the list of scenarios."""
    return [results.outcomes[name] for name in SCENARIOS if name in results.outcomes]


def generated(results: Results, plots: str) -> str:
    """Return everything between the marks.

    Args:
        results: what is kept.
        plots: where the pictures are, as seen from the document.
    """
    return "\n".join(_parts(results, plots))


def _parts(results: Results, plots: str) -> Iterator[str]:
    outcomes = ordered(results)
    yield "## What must hold\n"
    yield markdown_table(LINE_HEADS, [*line_rows(outcomes), *missing_rows(results)])
    if outcomes:
        yield f"Packages: {packages(results)}.\n"
    for outcome in outcomes:
        yield f"## {outcome.title}\n"
        yield conditions(outcome) + "\n"
        if SCENARIOS[outcome.scenario].is_curve:
            yield f"![{outcome.title}]({plots}/{outcome.scenario}.png)\n"
        if outcome.runs:
            yield markdown_table(RUN_HEADS, run_rows(outcome.runs))
        for table in outcome.tables:
            yield f"{table.title}:\n"
            yield markdown_table(table.heads, table.rows)
        for note in outcome.notes:
            yield f"{note}\n"


def missing_rows(results: Results) -> list[list[str]]:
    """Return the scenarios that say what must hold, and of which there is no result."""
    return [
        [each.title, "", "not measured", "", f"`make bench BENCH={each.name}`"]
        for each in SCENARIOS.values()
        if each.has_targets and each.name not in results.outcomes
    ]
