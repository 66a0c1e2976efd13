"""What the model's thread does where no other thread decodes."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from despacho.job.v1.job_pb2 import Job, ModelCard
from dispatch.errors import ImageUndecodable
from dispatch.jobs import Claim, Outcome, Priority
from dispatch.retiring import Ended
from tests.batching_steps import (
    HIGH,
    LIMIT_S,
    LOW,
    NORMAL,
    OPERATION,
    numbers,
    put,
    ready_queue,
)
from worker.batch_cost import BatchCost
from worker.decoders import Decoders
from worker.engine import Float32Array, UInt8Array
from worker.in_hand import InHand
from worker.loop import Loop
from worker.politeness import Politeness
from worker.sieve import Sieve
from worker.work_done import WorkDone

BAD = 99
BATCH = 4


class Queue:
    worker = "w"
    model = "between"

    def now_ms(self) -> float:
        return 1000.0


class House:
    """Decoders and a loop, and nobody to decode but the loop; what happens is in `steps`."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcomes: dict[int, Outcome] = {}
        self.on_decode: Callable[[int], None] = lambda _: None
        self.in_hand = InHand(max_jobs=100, max_bytes=100)
        politeness, cost, queue = Politeness(BATCH), BatchCost(BATCH), Queue()
        self.ready = ready_queue(
            BATCH,
            max_wait_s=60,
            cost=cost,
            has_undecoded=lambda: self.decoders.has_waiting(),  # noqa: PLW0108 - not made yet
        )
        sieve = Sieve(queue, self.in_hand, self)  # type: ignore[arg-type]
        self.decoders = Decoders(
            queue,  # type: ignore[arg-type]
            sieve,
            self.ready,
            self,  # type: ignore[arg-type]
            self.decode,
        )
        self.loop = Loop(
            queue=queue,  # type: ignore[arg-type]
            in_hand=self.in_hand,
            sieve=sieve,
            ready=self.ready,
            cost=cost,
            politeness=politeness,
            publisher=self,  # type: ignore[arg-type]
            work_done=WorkDone(),
            engine=self,
            card=ModelCard(name="m", labels=["a", "b"], max_batch_size=BATCH),
            decode_one=self.decoders.decode_one,
        )

    def decode(self, image: bytes) -> UInt8Array:
        (value,) = image
        self.steps.append(f"decode {value}")
        self.on_decode(value)
        if value == BAD:
            raise ImageUndecodable("no image")
        return np.full((2, 2, 3), value, np.uint8)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Need none."""

    def predict(self, images: UInt8Array) -> Float32Array:
        self.steps.append(f"infer {[int(image[0, 0, 0]) for image in images]}")
        return np.full((len(images), 2), 0.5, np.float32)

    def publish(self, ended: Sequence[Ended]) -> None:
        if ended:
            numbers = [int(claim.job.id) for claim, _, _ in ended]
            self.steps.append(f"answer {numbers}")
            self.outcomes |= {int(claim.job.id): outcome for claim, _, outcome in ended}
            self.in_hand.remove([claim for claim, _, _ in ended])

    def publish_and_look(self, ended: Sequence[Ended], *, looks: bool) -> None:
        del looks
        self.publish(ended)

    def submit(self, *claims: Claim) -> None:
        self.decoders.submit(self.in_hand.add(claims))

    def run(self, *claims: Claim) -> list[str]:
        """Run until all of these are answered."""
        thread = threading.Thread(target=self.loop.run)
        self.submit(*claims)
        thread.start()
        assert self.in_hand.wait_until_empty(LIMIT_S)
        self.close()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
        return self.steps

    def close(self) -> None:
        self.decoders.close()
        self.ready.close()


def claim(number: int, priority: Priority = NORMAL, *, waited_ms: int = 0) -> Claim:
    entry_id = f"{1000 - waited_ms}-{number}"
    job = Job(id=str(number), top_k=1)
    return Claim(job, bytes([number]), priority, entry_id, 1, 60_000, 1)


def test_a_batch_is_decoded_before_it_is_run() -> None:
    assert House().run(*map(claim, range(6)))[:6] == [
        *("decode 0", "decode 1", "decode 2", "decode 3"),
        "infer [0, 1, 2, 3]",
        "answer [0, 1, 2, 3]",
    ]


def test_calls_are_decoded_before_operations_and_never_run_with_them() -> None:
    house = House()
    steps = house.run(claim(1, OPERATION), claim(2, LOW), claim(3, HIGH))
    assert [step for step in steps if "answer" not in step] == [
        *("decode 3", "decode 2", "infer [3, 2]"),
        *("decode 1", "infer [1]"),
    ]


def test_answers_do_not_wait_for_the_next_images_to_be_decoded() -> None:
    steps = House().run(*map(claim, range(5)))
    assert steps.index("answer [0, 1, 2, 3]") < steps.index("decode 4")


def test_answers_to_what_waited_for_long_wait_for_the_next_images() -> None:
    steps = House().run(*(claim(number, waited_ms=900) for number in range(5)))
    assert steps.index("decode 4") < min(
        steps.index(step) for step in steps if step.startswith("answer")
    )


def test_answers_that_wait_for_a_huge_image_can_be_sent_without_it() -> None:
    house = House()

    def take_long(value: int) -> None:
        if value == 4:
            limit = time.monotonic() + LIMIT_S
            while not house.loop.is_late():
                assert time.monotonic() < limit
                time.sleep(0.01)
            house.loop.relieve()

    house.on_decode = take_long
    steps = house.run(*(claim(number, waited_ms=900) for number in range(5)))
    assert steps.index("answer [0, 1, 2, 3]") == steps.index("decode 4") + 1
    assert house.outcomes == dict.fromkeys(range(5), Outcome.COMPLETED)


def test_a_bad_image_does_not_keep_its_neighbours() -> None:
    house = House()
    house.run(claim(1), claim(BAD), claim(2))
    assert house.outcomes == {
        1: Outcome.COMPLETED,
        BAD: Outcome.FAILED,
        2: Outcome.COMPLETED,
    }
    assert "infer [1, 2]" in house.steps


def test_what_comes_while_the_batch_is_decoded_goes_along() -> None:
    house = House()
    house.on_decode = lambda value: house.submit(claim(2)) if value == 1 else None
    assert "infer [1, 2]" in house.run(claim(1))


def test_a_model_that_sleeps_is_woken_to_decode() -> None:
    house = House()
    thread = threading.Thread(target=house.loop.run)
    thread.start()
    try:
        for number in range(3):
            house.submit(claim(number))
            assert house.in_hand.wait_until_empty(LIMIT_S)
    finally:
        house.close()
        thread.join(LIMIT_S)
    assert house.outcomes == dict.fromkeys(range(3), Outcome.COMPLETED)


@pytest.mark.parametrize("is_call", [True, False], ids=["call", "operation"])
def test_only_a_call_ends_what_holds_operations_back(*, is_call: bool) -> None:
    waits = False
    ready = ready_queue(BATCH, max_wait_s=0, has_undecoded=lambda: waits)
    ready.expect(claim(1, HIGH if is_call else OPERATION))
    assert not ready._is_call_undecoded()
    waits = True
    assert ready._is_call_undecoded() is is_call


def test_an_image_that_comes_while_a_batch_waits_is_decoded_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undecoded = False
    ready = ready_queue(BATCH, max_wait_s=0, has_undecoded=lambda: undecoded)
    put(ready, 1)
    ready.expect(claim(2))

    def about_to_wait() -> float:
        nonlocal undecoded
        undecoded = True
        return 0.1

    monkeypatch.setattr(ready, "_wait_s", about_to_wait)
    assert ready.next_batch() == []


def test_operations_are_not_held_once_more_when_they_are_decoded() -> None:
    undecoded = False
    ready = ready_queue(BATCH, max_wait_s=0, has_undecoded=lambda: undecoded)
    put(ready, 1)
    assert numbers(ready.next_batch()) == [1]
    assert ready._calls_taken_at is not None
    ready.expect(claim(2, OPERATION))
    undecoded = True
    assert ready.next_batch() == []
    assert ready._calls_taken_at is None


def test_what_is_undecoded_when_the_worker_stops_is_left() -> None:
    house = House()
    house.submit(claim(1))
    house.close()
    house.loop.run()
    assert house.steps == []
    assert len(house.in_hand) == 1
