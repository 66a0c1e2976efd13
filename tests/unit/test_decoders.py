"""What is decoded, in which order, and what need not be."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from prometheus_client import REGISTRY

from despacho.job.v1.job_pb2 import Job
from dispatch.errors import ImageUndecodable
from dispatch.jobs import Claim, Outcome, Priority
from dispatch.retiring import Ended
from telemetry.metrics import Unwanted
from worker import quickness
from worker.batch_cost import BatchCost
from worker.batching import Prepared, ReadyQueue
from worker.decoders import Decoders
from worker.engine import UInt8Array
from worker.in_hand import InHand
from worker.politeness import Politeness
from worker.sieve import Sieve

HIGH, NORMAL, LOW, OPERATION = Priority
NOW_MS = 1000
PIXELS = np.zeros((1, 1, 3), np.uint8)


class Queue:
    worker = "w"
    model = "decoders"

    def now_ms(self) -> float:
        return NOW_MS


class Publisher:
    def __init__(self) -> None:
        self.ended: list[Ended] = []

    def publish(self, ended: Sequence[Ended]) -> None:
        self.ended += ended


class House:
    """Decoders with everything around them in memory."""

    def __init__(self, decode: Callable[[bytes], UInt8Array] = lambda _: PIXELS) -> None:
        self.decoded: list[bytes] = []
        self._decode = decode
        self.publisher = Publisher()
        self.in_hand = InHand(max_jobs=100, max_bytes=100)
        self.ready = ReadyQueue(
            max_wait_s=60,
            cost=BatchCost(8),
            politeness=Politeness(8),
            remaining_s=lambda _: math.inf,
        )
        queue = Queue()
        sieve = Sieve(queue, self.in_hand, self.publisher)  # type: ignore[arg-type]
        self.decoders = Decoders(
            queue,  # type: ignore[arg-type]
            sieve,
            self.ready,
            self.publisher,  # type: ignore[arg-type]
            self.decode,
        )

    def decode(self, image: bytes) -> UInt8Array:
        self.decoded.append(image)
        return self._decode(image)

    def run(self, *claims: Claim) -> list[bytes]:
        """Decode these, and return what was decoded."""
        self.decoders.submit(self.in_hand.add(claims))
        last = claim(99, OPERATION, image=b"last")

        def end(image: bytes) -> UInt8Array:
            if image == last.image:
                self.decoders.close()
            return decode(image)

        decode, self._decode = self._decode, end
        self.decoders.submit([last])
        self.decoders.run()
        return self.decoded[:-1]

    def batch(self) -> list[Prepared]:
        batch = self.ready.next_batch()
        assert batch is not None
        return batch


def claim(
    number: int, priority: Priority = NORMAL, *, image: bytes = b"", deadline_ms: int = NOW_MS + 1
) -> Claim:
    image = image or str(number).encode()
    return Claim(Job(id=str(number)), image, priority, f"{number}-0", 1, deadline_ms, 0)


def avoided(cause: Unwanted) -> float:
    labels = {"model": Queue.model, "stage": "decode", "cause": cause}
    return REGISTRY.get_sample_value("despacho_work_avoided_total", labels) or 0


def test_the_higher_priority_is_decoded_first_and_the_older_of_equal_ones() -> None:
    operations = [claim(number, OPERATION) for number in (1, 2)]
    calls = [claim(3, LOW), claim(4), claim(5), claim(6, HIGH)]
    assert House().run(*operations, *calls) == [b"6", b"4", b"5", b"3", b"1", b"2"]


def test_what_is_decoded_goes_to_the_model() -> None:
    house = House()
    house.run(claim(1))
    (item,) = house.batch()
    assert item.claim.entry_id == "1-0"
    assert item.pixels is PIXELS
    assert item.queue_us == 999_000


def test_an_expired_job_is_not_decoded() -> None:
    house, before = House(), avoided("expired")
    assert house.run(claim(1, deadline_ms=NOW_MS), claim(2)) == [b"2"]
    assert [(ended.job.id, outcome) for ended, _, outcome in house.publisher.ended] == [
        ("1", Outcome.EXPIRED)
    ]
    assert len(house.batch()) == 1  # and the model does not wait for it
    assert avoided("expired") == before + 1


def test_a_lost_job_is_neither_decoded_nor_answered() -> None:
    house, before = House(), avoided("cancelled")
    lost = claim(1)
    house.in_hand.add([lost])
    house.in_hand.mark_lost([lost])
    house.decoders.submit([lost])
    assert house.run(claim(2)) == [b"2"]
    assert house.publisher.ended == []
    assert [claim.entry_id for claim in house.in_hand.snapshot()] == ["2-0"]
    assert avoided("cancelled") == before + 1


def test_a_job_that_was_given_back_is_not_decoded_and_no_work_is_avoided() -> None:
    house, before = House(), [avoided("cancelled"), avoided("expired")]
    left, late = claim(1), claim(2, deadline_ms=NOW_MS)
    house.in_hand.add([left, late])
    house.in_hand.mark_given_back([left, late])
    house.decoders.submit([left, late])
    assert house.run(claim(3)) == [b"3"]
    assert house.publisher.ended == []
    assert [claim.entry_id for claim in house.in_hand.snapshot()] == ["3-0"]
    assert [avoided("cancelled"), avoided("expired")] == before


@pytest.mark.parametrize("error", [ImageUndecodable("bad"), ValueError("worse")])
def test_an_image_that_cannot_be_decoded_fails_alone(error: Exception) -> None:
    def decode(image: bytes) -> UInt8Array:
        if image == b"1":
            raise error
        return PIXELS

    house = House(decode)
    house.run(claim(1), claim(2))
    ((failed, reply, outcome),) = house.publisher.ended
    assert (failed.job.id, outcome) == ("1", Outcome.FAILED)
    assert reply.failure.reason in {"IMAGE_UNDECODABLE", "INFERENCE_FAILED"}
    assert [item.claim.job.id for item in house.batch()] == ["2"]


def test_closed_decoders_leave_what_waits_and_end_every_thread() -> None:
    house = House()
    house.decoders.submit([claim(1)])
    house.decoders.close()
    house.decoders.run()
    house.decoders.run()
    assert house.decoded == []


def test_what_takes_no_time_is_decoded_by_whoever_submits_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quickness, "HANDOVER_S", 1e6)
    house = House()
    house.run(*(claim(number) for number in range(40)))
    house.decoders.submit(house.in_hand.add([claim(41), claim(42)]))
    assert house.decoded[-2:] == [b"41", b"42"]
    decoded = [house.batch() for _ in range(6)]
    assert [item.claim.job.id for item in decoded[-1]][-2:] == ["41", "42"]


def test_what_began_to_take_time_is_left_for_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickness, "HANDOVER_S", 1e6)

    def decode(image: bytes) -> UInt8Array:
        if image == b"large":
            monkeypatch.setattr(quickness, "HANDOVER_S", 0)
        return PIXELS

    house = House(decode)
    house.run(*(claim(number) for number in range(40)))
    house.decoders.submit(house.in_hand.add([claim(41), claim(42, image=b"large"), claim(43)]))
    assert house.decoded[-2:] == [b"41", b"large"]
    # What is decoded does not wait for the others.
    ready = [house.ready.calls_now() for _ in range(6)]
    assert [item.claim.job.id for item in ready[-1]][-2:] == ["41", "42"]
