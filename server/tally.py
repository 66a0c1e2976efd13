"""What this process has done since it started: how fast images were answered, what failed.

One for the process, like the counters of `telemetry`, and as cheap: each image
of each call is counted here.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from despacho.job.v1.job_pb2 import FrontEndCard
from dispatch.latency import EDGES_S, bucket_of


@dataclass(slots=True)
class OfModel:
    """What was done for one model."""

    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES_S) + 1))
    """Images that were answered, by `bucket_of` how long it took."""

    latency_s: float = 0.0
    """How long all of them took together, seconds."""

    failures: Counter[str] = field(default_factory=Counter)
    """What failed, by reason."""


NO_MODEL: Final = ""
"""Under which is counted what failed before it was known which model was meant."""


class Tally:
    """Counts by model. Counted by one thread; `read` by any."""

    def __init__(self) -> None:
        self._models: dict[str, OfModel] = {}
        self._shown: set[str] = set()
        """Models that were there once. Their counts stay when they are forgotten: one that falls
        is taken for one that began again, and the sum over several processes, each of which would
        drop its own at another moment, for many new failures."""

        self._sorting = threading.Lock()

    def answered(self, model: str, seconds: float) -> None:
        """Count an image that was answered.

        Args:
            model: which model.
            seconds: from being accepted from the caller to having the answer.
        """
        of_model = self._of(model)
        of_model.latency_counts[bucket_of(seconds)] += 1
        of_model.latency_s += seconds

    def failed(self, model: str, reason: str) -> None:
        """Count an image that failed, or a call or a request of several images as a whole.

        Args:
            model: which model; empty: nobody knows.
            reason: as in `ErrorInfo.reason`.
        """
        self._of(model).failures[reason] += 1

    def write_to(self, card: FrontEndCard, models: Iterable[str]) -> None:
        """Write the counts into `card`.

        Args:
            card: gets them.
            models: those that are there. What failed for another name that never was is counted as
                if it had named none, as callers can make up as many as they like.
        """
        with self._sorting:
            self._shown.update(models)
            for name in self._models.keys() - {NO_MODEL, *self._shown}:
                self._of(NO_MODEL).failures.update(self._models.pop(name).failures)
        del card.models[:]
        for name, of_model in self._models.items():
            written = card.models.add(model=name, failures=of_model.failures)
            counts = of_model.latency_counts
            used = max((index for index, count in enumerate(counts, 1) if count), default=0)
            written.latency_counts.extend(counts[:used])

    def read(self) -> dict[str, OfModel]:
        """Return copies by model, of those that were there when `write_to` was called.

        What was counted for another one since is left out, as nobody knows yet whether it is
        there: a count that is shown never falls.
        """
        with self._sorting:
            of_none = self._models.get(NO_MODEL, OfModel())
            shown = {name: self._models.get(name, OfModel()) for name in self._shown}
            return {
                name: OfModel(list(one.latency_counts), one.latency_s, Counter(one.failures))
                for name, one in {NO_MODEL: of_none, **shown}.items()
            }

    def _of(self, model: str) -> OfModel:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = OfModel()
        return found


TALLY: Final = Tally()
"""That of this process."""
