"""The jobs this worker has claimed and not yet ended, shared by its threads."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from dispatch.jobs import Claim, Place, Room

_NO_ROOM: Final = Room(jobs=0, size_bytes=0)


class InHand:
    """Bounded by images and bytes; a suspect is alone in it.

    Jobs that are answered count with their bytes only, until they are gone. Calls find room
    whatever operations are held, and operations fill what calls leave. So there may be twice as
    many as the limits say, and for a while thrice when others have given operations back.
    """

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        """Start empty-handed.

        Args:
            max_jobs: most calls, and most jobs beside which an operation is claimed; two
                batches, one in the model and one being decoded. More would only hold
                jobs that an idle worker could take.
            max_bytes: bytes of images, of the same jobs, above which no more are claimed.
        """
        self._most = Room(max_jobs, max_bytes)
        self._claims: dict[Place, Claim] = {}
        self._lost: set[Place] = set()
        self._given_back: set[Place] = set()
        self._answered: set[Place] = set()
        self._changed = threading.Condition()

    def allow(self, max_jobs: int) -> None:
        """Change how many calls may be held, once it is known how large batches are."""
        with self._changed:
            self._most = Room(max_jobs, self._most.size_bytes)
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return how many jobs are in hand."""
        return len(self._claims)

    def add(self, claims: Iterable[Claim]) -> list[Claim]:
        """Take jobs in hand; return those that were not there already."""
        with self._changed:
            new = [claim for claim in claims if claim.place not in self._claims]
            for claim in new:
                self._claims[claim.place] = claim
            self._changed.notify_all()
            return new

    def remove(self, claims: Iterable[Claim]) -> None:
        """Let go of jobs that are over."""
        with self._changed:
            for claim in claims:
                if self._claims.pop(claim.place, None) is not None:
                    self._lost.discard(claim.place)
                    self._given_back.discard(claim.place)
                    self._answered.discard(claim.place)
            self._changed.notify_all()

    def note_answered(self, claims: Iterable[Claim]) -> None:
        """Say which jobs only wait for their answers to be sent: others find room beside them."""
        with self._changed:
            self._answered.update(self._claims.keys() & {claim.place for claim in claims})
            self._changed.notify_all()

    def note_unsent(self, places: Iterable[Place]) -> None:
        """Say whose answers could not be sent: nobody knows for how long, so they leave no room."""
        with self._changed:
            self._answered.difference_update(places)

    def mark_lost(self, claims: Iterable[Claim]) -> None:
        """Say which jobs were retired or taken over by others."""
        with self._changed:
            self._lost.update(self._claims.keys() & {claim.place for claim in claims})

    def mark_given_back(self, claims: Sequence[Claim]) -> None:
        """Say which jobs are left to others: lost, though somebody waits for them."""
        with self._changed:
            self._given_back.update(claim.place for claim in claims)
        self.mark_lost(claims)

    def is_given_back(self, claim: Claim) -> bool:
        """Return whether this job was left to others."""
        return claim.place in self._given_back

    def is_lost(self, claim: Claim) -> bool:
        """Return whether others retired or took over this job."""
        return claim.place in self._lost

    def snapshot(self) -> list[Claim]:
        """Return the jobs in hand that are still ours."""
        with self._changed:
            return [claim for place, claim in self._claims.items() if place not in self._lost]

    def wait_for_call_room(self, timeout_s: float) -> Room:
        """Return how many calls may be claimed; none if there is no room in time.

        Claiming several at once costs as much as claiming one, and while most of the hands are
        full there is no hurry.
        """
        return self._wait_for(self._worthwhile_call_room, timeout_s)

    def wait_for_operation_room(self, timeout_s: float) -> Room:
        """Return how many operations may be claimed; none if there is no room in time."""
        return self._wait_for(self._operation_room, timeout_s)

    def room_for_any(self) -> int:
        """Return how many jobs may be taken of which it is not known what they are."""
        with self._changed:
            operations = sum(claim.is_operation for claim in self._claims.values())
            # Twice: calls that were given back must not wait until the operations are over.
            return max(0, min(self._call_room().jobs, 2 * self._most.jobs - operations))

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Return whether the hands are empty in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._claims, timeout_s)

    def _wait_for(self, room: Callable[[], Room], timeout_s: float) -> Room:
        with self._changed:
            # None that is negative: what was not known before it came may exceed the limits.
            return self._changed.wait_for(room, timeout_s) or _NO_ROOM

    def _worthwhile_call_room(self) -> Room:
        room = self._call_room()
        # Half a batch. Were it more, the model would take what is left of the last claim as a
        # small batch, for want of others, and after a small one there would be too little room.
        worthwhile = min(self._most.jobs, max(2, self._most.jobs // 4))
        return room if room.jobs >= worthwhile else _NO_ROOM

    def _call_room(self) -> Room:
        if self._holds_suspect():
            return _NO_ROOM
        return self._without(
            {place: claim for place, claim in self._claims.items() if not claim.is_operation}
        )

    def _operation_room(self) -> Room:
        if self._holds_suspect():
            return _NO_ROOM
        return self._without(self._claims)

    def _without(self, claims: Mapping[Place, Claim]) -> Room:
        """Return the room that these leave; their bytes are held until they are gone."""
        room = self._most.without(claims.values())
        return Room(room.jobs + len(self._answered & claims.keys()), room.size_bytes)

    def _holds_suspect(self) -> bool:
        return any(claim.is_suspect for claim in self._claims.values())
