"""Takes operations from the queue into the room that calls leave."""

import threading
from typing import Final

from dispatch.errors import BrokerUnavailable
from dispatch.jobs import Claim, Priority
from dispatch.work_queue import WorkQueue
from telemetry.absence import Absence
from worker.decoders import Decoders
from worker.in_hand import InHand

WAIT_S: Final = 0.5
"""How long to wait for room before looking around again."""

PAUSE_S: Final = 0.2
"""Between tries while Redis is away."""


class OperationsIntake:
    """Claims operations until stopped, in a thread of its own.

    A blocking read cannot be widened when room appears, so calls and operations, which
    have different room, are read by different threads.
    """

    def __init__(self, queue: WorkQueue, in_hand: InHand, decoders: Decoders) -> None:
        self._queue = queue
        self._in_hand = in_hand
        self._decoders = decoders
        self._changed = threading.Condition()
        self._is_held = False
        self._is_claiming = False
        self._is_stopping = False
        self._absence = Absence("operations")

    def run(self) -> None:
        """Take operations in until stopped."""
        while not self._is_stopping:
            try:
                self._decoders.submit(self._next_claims())
            except BrokerUnavailable as error:
                # What was claimed stays pending in Redis and is reclaimed.
                self._absence.noticed(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopping, PAUSE_S)

    def stop(self) -> None:
        """Claim no more."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def hold(self) -> None:
        """Claim nothing until `release`; when this returns, no claim is under way."""
        with self._changed:
            self._is_held = True
            self._changed.wait_for(lambda: not self._is_claiming)

    def release(self) -> None:
        """Claim again."""
        with self._changed:
            self._is_held = False
            self._changed.notify_all()

    def _next_claims(self) -> list[Claim]:
        if not self._in_hand.wait_for_operation_room(WAIT_S) or not self._begin():
            return []
        try:
            # Again: a suspect may have come into the hands meanwhile.
            room = self._in_hand.wait_for_operation_room(0)
            claims = self._queue.claim((Priority.OPERATION,), room, block=True)
            self._absence.over()
            return self._in_hand.add(claims)
        finally:
            self._end()

    def _begin(self) -> bool:
        """Return whether a claim may begin; then `_end` follows."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_held or self._is_stopping)
            self._is_claiming = not self._is_stopping
            return self._is_claiming

    def _end(self) -> None:
        with self._changed:
            self._is_claiming = False
            self._changed.notify_all()
