"""Which engine it shall be, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.model_spec import Precision
from worker.tune.table import Mode, Row, Table

BATCH_COST_S: Final = 0.0005
"""What each batch costs a worker beside the model: a round trip to Redis and some Python. Without
it batches of one would look better than they are."""

WORTH: Final = 1.05
"""How many times as fast as TensorFlow an engine must be to be chosen instead, and a larger batch
as a smaller one: a difference that is not just the noise of the measurement."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A row of the table."""

    row: Row

    reason: str
    """For whoever reads the log."""


def choose(table: Table, mode: Mode, *, max_batch_size: int, precision: Precision) -> Choice | None:
    """Return the best row; None: there is none that can be used.

    The fastest engine, and of its sizes of batch the smallest that is as good: callers wait for
    all of a batch.

    Args:
        table: what was measured.
        mode: how the worker runs.
        max_batch_size: a limit.
        precision: bf16 admits rows of that precision, too.
    """
    rows = [
        row
        for row in table.rows
        if row.mode == mode
        and row.batch_size <= max_batch_size
        and row.is_acceptable
        and row.candidate.precision in {"float32", precision}
    ]
    if not rows:
        return None
    best_of = [_best_batch([row for row in rows if row.candidate == candidate]) for candidate in
               dict.fromkeys(row.candidate for row in rows)]  # fmt: skip
    fastest = max(best_of, key=worth)
    reference = next((row for row in best_of if row.candidate.engine == "tensorflow"), None)
    if reference is None or reference is fastest:
        return Choice(fastest, f"the fastest of {len(best_of)}")
    ratio = worth(fastest) / worth(reference)
    if ratio < WORTH:
        return Choice(reference, f"{fastest.candidate} is not faster ({ratio:.2f} times)")
    return Choice(
        fastest,
        f"{ratio:.2f} times as many images per second as {reference.candidate}"
        f" ({reference.images_per_s:.0f}); {fastest.agreement}",
    )


def worth(row: Row) -> float:
    """Return how many images per second a worker would make of this row."""
    batch_s = row.batch_size * row.ms_per_image / 1000
    return row.mode.processes * row.batch_size / (batch_s + BATCH_COST_S)


def _best_batch(rows: Sequence[Row]) -> Row:
    """Return the smallest batch that is as good as the best."""
    fastest = max(worth(row) for row in rows)
    return next(
        row for row in sorted(rows, key=lambda row: row.batch_size) if worth(row) * WORTH >= fastest
    )
