"""Tells Redis, every second, that this worker lives and what it holds."""

import threading
from collections.abc import Callable
from typing import Final

from despacho.job.v1.job_pb2 import ModelCard, WorkerCard
from dispatch.errors import BrokerUnavailable
from dispatch.work_queue import WorkQueue
from telemetry.absence import Absence
from telemetry.metrics_catalogue import REDIS_BROKEN, REDIS_ROUND_TRIP
from worker.in_hand import InHand
from worker.work_done import WorkDone

PERIOD_S: Final = 1.0
"""A third of a lease and of a worker's life in the list: two beats may fail."""

RETRY_S: Final = 0.2


class Keeper:
    """Heartbeat and leases, in a thread of its own: a long inference does not stop them."""

    def __init__(
        self, queue: WorkQueue, in_hand: InHand, work_done: WorkDone, card: ModelCard
    ) -> None:
        self._queue = queue
        self._in_hand = in_hand
        self._work_done = work_done
        self._card = card
        self._worker = WorkerCard(worker=queue.worker, model_version=card.version)
        self._told = WorkerCard()
        self._changed = threading.Event()
        self._changed.set()
        self._wake = threading.Event()
        self._is_stopping = False
        self._on_listed: Callable[[], None] | None = None
        self._absence = Absence("heartbeat")

    def set_ready(self, on_listed: Callable[[], None]) -> None:
        """Say that this worker takes jobs now.

        Args:
            on_listed: called once, from the thread of the keeper, when front-ends can know it.
        """
        self._on_listed = on_listed
        self._worker.ready = True
        self._changed.set()
        self._wake.set()

    def run(self) -> None:
        """Beat until stopped."""
        while not self._is_stopping:
            try:
                self.beat()
            except BrokerUnavailable as error:
                self._absence.noticed(error)
                self._wake.wait(RETRY_S)
            else:
                self._absence.over()
                self._wake.wait(PERIOD_S)
            self._wake.clear()

    def stop(self) -> None:
        """Beat no more."""
        self._is_stopping = True
        self._wake.set()

    def beat(self) -> None:
        """Renew the leases and announce this worker, once.

        Raises:
            BrokerUnavailable: try again.
        """
        # First: others take a job over long before they miss its worker.
        if claims := self._in_hand.snapshot():
            self._in_hand.mark_lost(self._queue.renew(claims))
        has_changed = self._changed.is_set()
        if has_changed:
            # Before the cards are read: a change that comes now is told in the next beat.
            self._changed.clear()
        self._work_done.write_to(self._worker)
        self._worker.in_hand = len(self._in_hand)
        is_ready = self._worker.ready
        try:
            round_trip_s = self._queue.announce(
                self._worker,
                self._card,
                has_changed=has_changed,
                has_worked=self._worker != self._told,
            )
        except BrokerUnavailable:
            if has_changed:
                self._changed.set()
            REDIS_BROKEN.add("announce")
            raise
        REDIS_ROUND_TRIP.observe(round_trip_s, "announce")
        self._told.CopyFrom(self._worker)
        if is_ready and self._on_listed is not None:
            on_listed, self._on_listed = self._on_listed, None
            on_listed()
