"""How many jobs to take in one read, by how large the last ones were."""

from collections.abc import Sequence
from typing import Final

from dispatch.jobs import Claim, Room

FEWEST: Final = 4
MOST: Final = 32
"""Jobs per read; the bytes in hand can exceed their limit by at most these."""

SHARE: Final = 4
"""Jobs as large as the last ones would fill this part of the room in one read."""

FADING: Final = 0.9
"""What is left, from read to read, of the size of a job that has not come again."""


class ClaimStep:
    """Many small jobs, few large ones. Threads may share it: it is a guess anyway."""

    def __init__(self) -> None:
        """Know nothing yet: few."""
        self._typical_bytes = 0.0

    def jobs(self, room: Room) -> int:
        """Return how many to take into this room in one read."""
        if not self._typical_bytes:
            return min(room.jobs, FEWEST)
        fitting = int(room.size_bytes / SHARE / self._typical_bytes)
        return min(room.jobs, max(FEWEST, min(fitting, MOST)))

    def note(self, claims: Sequence[Claim]) -> None:
        """Learn what a read has brought."""
        if claims:
            largest = max(claim.size_bytes for claim in claims)
            self._typical_bytes = max(largest, self._typical_bytes * FADING)
