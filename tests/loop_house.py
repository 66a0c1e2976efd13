"""A loop of a worker with everything around it in memory."""

import math
from collections.abc import Sequence

import numpy as np

from despacho.job.v1.job_pb2 import Job, ModelCard
from dispatch.errors import BrokerUnavailable
from dispatch.jobs import Claim, Outcome, Priority
from dispatch.retiring import Ended
from worker.batch_cost import BatchCost
from worker.batching import Prepared, ReadyQueue
from worker.engine import Float32Array, UInt8Array
from worker.in_hand import InHand
from worker.loop import Loop
from worker.politeness import Politeness
from worker.sieve import Sieve
from worker.work_done import WorkDone

BAD = 13
NOT_A_NUMBER = 254


class Engine:
    """Scores [value, 255 - value]; raises on `BAD`, overflows on `NOT_A_NUMBER`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.images: list[UInt8Array] = []

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        pass

    def predict(self, images: UInt8Array) -> Float32Array:
        values = [int(image[0, 0, 0]) for image in images]
        self.batches.append(values)
        self.images.append(images)
        if BAD in values:
            raise ValueError("bad image")
        shares = [math.nan if value == NOT_A_NUMBER else value / 255 for value in values]
        return np.array([[share, 1 - share] for share in shares], np.float32)


class Queue:
    """Leases in memory."""

    worker = "w"
    model = "loop"

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.is_away = False
        self.asked: list[set[str]] = []

    def now_ms(self) -> float:
        return 1000.0

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        if self.is_away:
            raise BrokerUnavailable("away")
        self.asked.append({claim.entry_id for claim in claims})
        return [claim for claim in claims if claim.entry_id in self.lost]


class Publisher:
    """Keeps what was published, and asks the queue what is lost."""

    def __init__(self, queue: Queue, in_hand: InHand) -> None:
        self._queue = queue
        self._in_hand = in_hand
        self.ended: list[Ended] = []
        self.waited_for: list[Ended] = []
        self.together: list[tuple[int, bool]] = []
        """Of each round trip of the loop: how many replies it had, and whether it looked."""

    def publish(self, ended: Sequence[Ended]) -> None:
        self.ended += ended

    def publish_now(self, ended: Sequence[Ended]) -> None:
        self.ended += ended
        self.waited_for += ended

    def publish_and_look(self, ended: Sequence[Ended], *, looks: bool) -> None:
        self.together.append((len(ended), looks))
        self.ended += ended
        self._in_hand.remove([claim for claim, _, _ in ended])
        if looks and not self._queue.is_away:
            self._in_hand.mark_lost(self._queue.renew(self._in_hand.snapshot()))


class House:
    """A loop with everything around it in memory."""

    def __init__(self) -> None:
        self.queue, self.engine = Queue(), Engine()
        self.in_hand = InHand(max_jobs=100, max_bytes=100)
        self.publisher = Publisher(self.queue, self.in_hand)
        self.work_done = WorkDone()
        self.cost = BatchCost(8)

    def run(self, *items: Prepared) -> dict[int, Outcome]:
        ready, loop = self.parts()
        self.put(ready, *items)
        ready.close()
        loop.run()
        return self.outcomes()

    def put(self, ready: ReadyQueue, *items: Prepared) -> None:
        for item in items:
            self.in_hand.add([item.claim])
            ready.expect(item.claim)
            ready.put([item])

    def outcomes(self) -> dict[int, Outcome]:
        return {int(claim.job.id): outcome for claim, _, outcome in self.publisher.ended}

    def parts(self) -> tuple[ReadyQueue, Loop]:
        politeness = Politeness(8)
        ready = ReadyQueue(
            max_wait_s=0,
            cost=self.cost,
            politeness=politeness,
            remaining_s=lambda _: math.inf,
        )
        card = ModelCard(name="m", version="7", labels=["a", "b"], max_batch_size=8)
        sieve = Sieve(self.queue, self.in_hand, self.publisher)  # type: ignore[arg-type]
        loop = Loop(
            queue=self.queue,  # type: ignore[arg-type]
            in_hand=self.in_hand,
            sieve=sieve,
            ready=ready,
            cost=self.cost,
            politeness=politeness,
            publisher=self.publisher,  # type: ignore[arg-type]
            work_done=self.work_done,
            engine=self.engine,
            card=card,
            decode_one=lambda: None,
        )
        return ready, loop


def item(
    value: int, *, deadline_ms: int = 5000, priority: Priority = Priority.NORMAL, queue_us: int = 5
) -> Prepared:
    job = Job(id=str(value), top_k=1)
    claim = Claim(job, b"", priority, f"{value}-0", 1, deadline_ms, 1)
    return Prepared(claim, np.full((2, 2, 3), value, np.uint8), queue_us, 6)
