"""Makes the tables of metrics in docs/metrics.md.

A row has what `telemetry/metrics_catalogue.py` says of a metric.
"""

from collections.abc import Iterable
from typing import Final

from deploy.generated_page import table
from deploy.state import ROOT
from telemetry import metrics_catalogue as catalogue
from telemetry.metrics_instruments import Histogram, Instrument

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


def parts() -> dict[str, str]:
    """Return what stands in the page, by name."""
    return {f"metrics: {name}": metrics_table(each) for name, each in SERVICES.items()}


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
