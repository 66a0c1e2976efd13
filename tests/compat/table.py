"""The table of docs/compatibility.md: which client did what."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.compat.clients.cells import FEATURES, OK
from tests.compat.trial import CLIENTS, Trial

PAGE: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"

BEGIN: Final = "<!-- written by `python -m tests.compat` -->"
END: Final = "<!-- end -->"

_MARKED: Final = re.compile(f"{re.escape(BEGIN)}\n(.*?)\n{re.escape(END)}", re.DOTALL)

WORKS: Final = "✓"
FAILS: Final = "**fails**"
ABSENT: Final = "n/a"


def written(trials: Mapping[str, Trial]) -> str:
    """Return the table: a row for each feature, a column for each client."""
    columns = [trials[client.name] for client in CLIENTS]
    titles = [f"{client.title}<br>{_versions(trials[client.name])}" for client in CLIENTS]
    lines = ["| | " + " | ".join(titles) + " |", "|---|" + ":-:|" * len(titles)]
    for feature, text in FEATURES.items():
        cells = [_cell(trial.outcomes.get(feature)) for trial in columns]
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown() -> str:
    """Return the table that is on the page."""
    match = _MARKED.search(PAGE.read_text(encoding="utf-8"))
    assert match, f"{PAGE} has lost its marks"
    return match.group(1)


def show(table: str) -> None:
    """Put the table on the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_MARKED.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text), encoding="utf-8")


def _versions(trial: Trial) -> str:
    return "<br>".join(f"{package} {version}" for package, version in trial.versions.items())


def _cell(outcome: str | None) -> str:
    if outcome is None:
        return ABSENT
    return WORKS if outcome == OK else FAILS
