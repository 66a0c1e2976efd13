"""The jobs this worker has claimed and not yet ended, shared by its threads."""

import threading
from collections.abc import Iterable

from dispatch.jobs import Claim


class InHand:
    """Bounded by images and bytes; a suspect is alone in it."""

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        """Start empty-handed.

        Args:
            max_jobs: most jobs; two batches, one in the model and one being decoded. More
                would only hold jobs that an idle worker could take.
            max_bytes: bytes of images above which no more are claimed.
        """
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._claims: dict[str, Claim] = {}
        self._lost: set[str] = set()
        self._bytes = 0
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Return how many jobs are in hand."""
        return len(self._claims)

    def add(self, claims: Iterable[Claim]) -> list[Claim]:
        """Take jobs in hand; return those that were not there already."""
        with self._changed:
            new = [claim for claim in claims if claim.entry_id not in self._claims]
            for claim in new:
                self._claims[claim.entry_id] = claim
                self._bytes += claim.size_bytes
            self._changed.notify_all()
            return new

    def remove(self, claims: Iterable[Claim]) -> None:
        """Let go of jobs that are over."""
        with self._changed:
            for claim in claims:
                if self._claims.pop(claim.entry_id, None) is not None:
                    self._bytes -= claim.size_bytes
                    self._lost.discard(claim.entry_id)
            self._changed.notify_all()

    def mark_lost(self, entry_ids: Iterable[str]) -> None:
        """Say which jobs were retired or taken over by others."""
        with self._changed:
            self._lost.update(self._claims.keys() & set(entry_ids))

    def is_lost(self, claim: Claim) -> bool:
        """Return whether others retired or took over this job."""
        return claim.entry_id in self._lost

    def snapshot(self) -> list[Claim]:
        """Return the jobs in hand that are still ours."""
        with self._changed:
            return [claim for key, claim in self._claims.items() if key not in self._lost]

    def wait_for_room(self, timeout_s: float) -> tuple[int, int]:
        """Return how many jobs and bytes may be claimed; (0, 0) if there is no room in time."""
        with self._changed:
            if not self._changed.wait_for(self._has_room, timeout_s):
                return 0, 0
            return self._max_jobs - len(self._claims), self._max_bytes - self._bytes

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Return whether the hands are empty in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._claims, timeout_s)

    def _has_room(self) -> bool:
        if len(self._claims) == 1 and next(iter(self._claims.values())).is_suspect:
            return False
        return len(self._claims) < self._max_jobs and self._bytes < self._max_bytes
