"""How decoded images become batches."""

import threading

import numpy as np

from despacho.job.v1.job_pb2 import Job
from dispatch.jobs import Claim, Priority
from worker.batching import Prepared, ReadyQueue

LIMIT_S = 5.0


def prepared(number: int = 0) -> Prepared:
    claim = Claim(Job(), b"", Priority.NORMAL, f"{number}-0", 1, 0, 0)
    return Prepared(claim, np.zeros((1, 1, 3), np.uint8), 0, 0)


def entry_ids(batch: list[Prepared] | None) -> list[str]:
    assert batch is not None
    return [item.claim.entry_id for item in batch]


def put(ready: ReadyQueue, *numbers: int) -> None:
    for number in numbers:
        ready.expect()
        ready.put(prepared(number))


def test_a_batch_is_what_is_there() -> None:
    ready = ReadyQueue(max_batch_size=8, max_wait_s=LIMIT_S)
    put(ready, 1, 2, 3)
    assert entry_ids(ready.next_batch()) == ["1-0", "2-0", "3-0"]


def test_a_batch_is_never_larger_than_the_limit() -> None:
    ready = ReadyQueue(max_batch_size=2, max_wait_s=LIMIT_S)
    put(ready, 1, 2, 3)
    assert entry_ids(ready.next_batch()) == ["1-0", "2-0"]
    assert entry_ids(ready.next_batch()) == ["3-0"]


def test_a_batch_waits_for_images_that_are_being_decoded() -> None:
    ready = ReadyQueue(max_batch_size=8, max_wait_s=LIMIT_S)
    put(ready, 1)
    ready.expect()
    late = threading.Thread(target=ready.put, args=[prepared(2)])
    late.start()
    assert entry_ids(ready.next_batch()) == ["1-0", "2-0"]
    late.join()


def test_a_batch_does_not_wait_for_an_image_that_does_not_come() -> None:
    ready = ReadyQueue(max_batch_size=8, max_wait_s=60)
    put(ready, 1)
    ready.expect()
    late = threading.Thread(target=ready.give_up)
    late.start()
    assert entry_ids(ready.next_batch()) == ["1-0"]
    late.join()


def test_a_batch_waits_no_longer_than_it_may() -> None:
    ready = ReadyQueue(max_batch_size=8, max_wait_s=0.001)
    put(ready, 1)
    ready.expect()
    assert entry_ids(ready.next_batch()) == ["1-0"]


def test_a_closed_queue_is_emptied_and_then_over() -> None:
    ready = ReadyQueue(max_batch_size=8, max_wait_s=LIMIT_S)
    put(ready, 1)
    ready.close()
    assert entry_ids(ready.next_batch()) == ["1-0"]
    assert ready.next_batch() is None
