"""What a row found, and the table of all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HEADS: Final = (
    "row",
    "fault",
    "injected",
    "accepted",
    "answered",
    "lost",
    "duplicated",
    "recovery",
)
BEGIN: Final = "<!-- chaos: begin -->\n"
END: Final = "<!-- chaos: end -->\n"


@dataclass(slots=True)
class Result:
    """One row."""

    name: str
    fault: str
    injected: str = ""
    accepted: int = 0
    answered: int = 0
    lost: int = 0
    duplicated: int = 0
    recovery_s: float | None = None
    took_s: float = 0
    failures: list[str] = field(default_factory=list)
    not_run: str = ""
    """Why it was not run, or not judged; empty: it was."""

    def cells(self) -> list[str]:
        """Return what stands in the table."""
        if self.not_run:
            return [self.name, self.fault, self.not_run, "", "", "", "", ""]
        name = f"{self.name} (FAILED)" if self.failures else self.name
        recovery = "" if self.recovery_s is None else f"{self.recovery_s:.1f} s"
        counts = (self.accepted, self.answered, self.lost, self.duplicated)
        return [name, self.fault, self.injected, *(f"{n:,}" for n in counts), recovery]

    def line(self) -> str:
        """Return one line for a person who waits."""
        if self.not_run:
            return f"-       {self.name}: {self.not_run}"
        verdict = "FAILED " if self.failures else "ok     "
        recovery = "-" if self.recovery_s is None else f"{self.recovery_s:.1f} s"
        return (
            f"{verdict} {self.name}: {self.injected or self.fault}; accepted {self.accepted}, "
            f"answered {self.answered}, lost {self.lost}, duplicated {self.duplicated}, "
            f"recovery {recovery} ({self.took_s:.0f} s)"
        )


def text_table(results: Sequence[Result]) -> str:
    """Return the table for a terminal."""
    rows = [HEADS, *(result.cells() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column > 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(results: Sequence[Result]) -> str:
    """Return the table for a document."""
    rows = [
        f"| {' | '.join(HEADS)} |",
        "|---|---|---|--:|--:|--:|--:|--:|",
        *(f"| {' | '.join(result.cells())} |" for result in results),
    ]
    return "\n".join(rows) + "\n"


def write_markdown(path: Path, results: Sequence[Result]) -> None:
    """Put the table between its two marks in a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{markdown_table(results)}\n{END}{after}")
