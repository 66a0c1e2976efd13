"""A worker knows the time of Redis from its announcements, however far away Redis is."""

import pytest

from despacho.job.v1.job_pb2 import ModelCard, WorkerCard
from dispatch import work_queue, worker_clock
from dispatch.scripts import Command
from dispatch.work_queue import WorkQueue

NEAR_S = 0.001
FAR_S = 0.15
MODEL = ModelCard(name="m")


class FarRedis:
    """A line to a Redis that only says its time; and the clock here, on which nobody waits."""

    def __init__(self) -> None:
        self.monotonic_s = 100.0
        self.ahead_s = 1_000_000.0
        """Of the monotonic clock."""

        self.there_s = self.back_s = NEAR_S / 2
        """How long a command takes to Redis, and its reply back."""

    def monotonic(self) -> float:
        return self.monotonic_s

    def call(self, *commands: Command) -> list[int]:
        self.monotonic_s += self.there_s
        now_us = round((self.monotonic_s + self.ahead_s) * 1e6)
        self.monotonic_s += self.back_s
        return [now_us for _ in commands]

    def is_known_to(self, queue: WorkQueue) -> bool:
        return queue.now_ms() == pytest.approx((self.monotonic_s + self.ahead_s) * 1000, abs=1)


@pytest.fixture
def far_redis(monkeypatch: pytest.MonkeyPatch) -> FarRedis:
    redis = FarRedis()
    for module in (work_queue, worker_clock):
        monkeypatch.setattr(module, "time", redis)
    return redis


@pytest.fixture
def queue(far_redis: FarRedis) -> WorkQueue:
    queue = WorkQueue("redis://nowhere", MODEL.name, "worker-1")
    queue._line = far_redis  # type: ignore[assignment]
    return queue


def announce(queue: WorkQueue) -> None:
    queue.announce(WorkerCard(), MODEL, has_changed=False)


def test_it_follows_a_redis_that_is_always_far_away(queue: WorkQueue, far_redis: FarRedis) -> None:
    far_redis.there_s = far_redis.back_s = FAR_S / 2
    announce(queue)
    assert far_redis.is_known_to(queue)
    far_redis.ahead_s -= 60
    announce(queue)
    assert far_redis.is_known_to(queue)


def test_it_is_not_set_by_an_answer_that_is_much_slower_than_the_others(
    queue: WorkQueue, far_redis: FarRedis
) -> None:
    announce(queue)
    far_redis.back_s = 1.0  # half of which it could be wrong
    announce(queue)
    assert far_redis.is_known_to(queue)
    far_redis.back_s = NEAR_S / 2
    far_redis.ahead_s += 1
    announce(queue)
    assert far_redis.is_known_to(queue)


def test_a_slow_answer_is_better_than_none_and_a_fast_one_better_than_that(
    queue: WorkQueue, far_redis: FarRedis
) -> None:
    far_redis.back_s = 1.0
    announce(queue)
    assert queue.now_ms() > far_redis.ahead_s * 1000
    far_redis.back_s = NEAR_S / 2
    announce(queue)
    assert far_redis.is_known_to(queue)


def test_it_follows_a_redis_that_has_moved_far_away_within_half_a_minute(
    queue: WorkQueue, far_redis: FarRedis
) -> None:
    announce(queue)
    far_redis.there_s = far_redis.back_s = 0.7  # with more the line would count as broken
    far_redis.ahead_s += 60
    for _ in range(30):
        announce(queue)
    assert far_redis.is_known_to(queue)
