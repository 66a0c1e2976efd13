"""Write, or check, the tables of metrics in docs/metrics.md.

    python deploy/metrics_page.py --write
    python deploy/metrics_page.py --check    exit 1 if they are stale

A row has what `telemetry/metrics_catalogue.py` says of a metric.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
# Started as a script, so that the services are found in any installation.
sys.path.insert(0, str(ROOT))

from deploy.generated_page import run, table  # noqa: E402 - needs the path
from telemetry import metrics_catalogue as catalogue  # noqa: E402 - needs the path
from telemetry.metrics_instruments import Histogram, Instrument  # noqa: E402 - needs the path

PAGE: Final = ROOT / "docs" / "metrics.md"
HEADER: Final = ("name", "type", "labels", "several processes", "meaning")
SERVICES: Final[dict[str, tuple[Instrument, ...]]] = {
    "all": (catalogue.PROCESSES,),
    "shared": catalogue.SHARED,
    "server": catalogue.SERVER,
    "worker": catalogue.WORKER,
    "gateway": catalogue.GATEWAY,
}
_WORDS: Final = {"sum": "added up", "max": "the largest", "min": "the least"}


def main() -> int:
    """Run the command line; return the exit code."""
    parts = {f"metrics: {name}": metrics_table(each) for name, each in SERVICES.items()}
    return run(__doc__.splitlines()[0], PAGE, parts)


def metrics_table(instruments: Iterable[Instrument]) -> str:
    """Describe metrics, one row each."""
    return table(
        HEADER,
        (
            (
                f"`{instrument.name}`",
                instrument.kind,
                ", ".join(f"`{label}`" for label in instrument.labels),
                _WORDS[instrument.over_processes],
                instrument.about + _edges(instrument),
            )
            for instrument in instruments
        ),
    )


def _edges(instrument: Instrument) -> str:
    if not isinstance(instrument, Histogram):
        return ""
    first, *_, last = instrument.edges
    return f" {len(instrument.edges)} edges, {first:g} to {last:g}."


if __name__ == "__main__":
    sys.exit(main())
