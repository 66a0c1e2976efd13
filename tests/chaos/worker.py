"""A worker that stops at a stage until it is told to go on, or breaks a promise.

    python -m tests.chaos.worker REDIS_URL JOURNAL [--inference-ms N] [--batch N]
        [--stop-at STAGE --gate FIFO [--pass N]] [--break NAME]

The thread that reaches STAGE for the N+1st time writes `reached STAGE` to stderr
and waits until somebody writes to the FIFO. The other threads go on, so that the
worker looks alive and keeps its leases.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from despacho.job.v1.job_pb2 import Reply
from dispatch import keys
from dispatch.jobs import Claim, Completion, Priority, Room
from dispatch.retiring import Ended
from dispatch.work_queue import WorkQueue
from tests.worker_process import arguments_parser, colours_served, serve
from worker import app
from worker.engine import Engine, Float32Array, UInt8Array

STAGES: Final = (
    "after-claim",
    "decoding",
    "inferring",
    "before-complete",
    "after-complete",
    "renewing",
)

CLOCK_STEP_S: Final = 30.0
"""A wall clock that moves this much against the monotonic one was set."""


def say(text: str) -> None:
    """Tell the runner, which reads stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Gate:
    """Stops one thread, once."""

    def __init__(self, stage: str | None, fifo: Path | None, passes: int) -> None:
        """Remember where.

        Args:
            stage: where to stop; None: nowhere.
            fifo: what to wait for.
            passes: how often the stage is passed before.
        """
        self._stage = stage
        self._fifo = fifo
        self._passes = passes
        self._lock = threading.Lock()

    def reach(self, stage: str) -> None:
        """Stop if this is the stage."""
        with self._lock:
            if stage != self._stage or self._fifo is None:
                return
            if self._passes > 0:
                self._passes -= 1
                return
            self._stage = None
        say(f"reached {stage}")
        self._fifo.read_bytes()


class GatedQueue(WorkQueue):
    """The real queue, with gates before and after what it does."""

    def __init__(self, gate: Gate, url: str, model: str, worker: str) -> None:
        super().__init__(url, model, worker)
        self._gate = gate

    def claim(
        self, priorities: Sequence[Priority], room: Room, *, block: bool, at_once: int = 1
    ) -> list[Claim]:
        """Claim; then the stage `after-claim`: nobody but Redis knows of the claims."""
        claims = super().claim(priorities, room, block=block, at_once=at_once)
        if claims:
            self.on_claimed(claims)
            self._gate.reach("after-claim")
        return claims

    def on_claimed(self, claims: Sequence[Claim]) -> None:
        """Do nothing: a worker that keeps its promises."""

    def complete_and_renew(
        self, ended: Sequence[Ended], claims: Sequence[Claim]
    ) -> tuple[list[Completion], list[Claim]]:
        """Publish, between the stages `before-complete` and `after-complete`; then `renewing`."""
        if ended:
            self._gate.reach("before-complete")
        answers = self.publish_and_renew(ended, claims)
        if ended:
            self._gate.reach("after-complete")
        if claims:
            self._gate.reach("renewing")
        return answers

    def publish_and_renew(
        self, ended: Sequence[Ended], claims: Sequence[Claim]
    ) -> tuple[list[Completion], list[Claim]]:
        """Do as the real queue does."""
        return super().complete_and_renew(ended, claims)

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Renew; then the stage `renewing`: Redis has done it, the worker has not heard."""
        lost = super().renew(claims)
        self._gate.reach("renewing")
        return lost


class AckFirstQueue(GatedQueue):
    """Broken on purpose: acknowledges and deletes a job before there is an answer."""

    def on_claimed(self, claims: Sequence[Claim]) -> None:
        """Forget the jobs, as at-most-once queues do."""
        for claim in claims:
            stream = keys.jobs(self.model, claim.priority)
            self._line.call(
                ("XACK", stream, keys.GROUP, claim.entry_id), ("XDEL", stream, claim.entry_id)
            )

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Keep working on what Redis has forgotten."""
        del claims
        self._gate.reach("renewing")
        return []

    def publish_and_renew(
        self, ended: Sequence[Ended], claims: Sequence[Claim]
    ) -> tuple[list[Completion], list[Claim]]:
        """Publish and count, with nothing that decides who may."""
        del claims
        for claim, reply, outcome in ended:
            self._line.call(
                ("HINCRBY", keys.load(self.model), "bytes", -claim.size_bytes),
                add_reply(self.model, claim, reply),
                ("HINCRBY", keys.totals(self.model), outcome.value, 1),
            )
        return [Completion.PUBLISHED for _ in ended], []


class PublishTwiceQueue(GatedQueue):
    """Broken on purpose: publishes each reply once more."""

    def publish_and_renew(
        self, ended: Sequence[Ended], claims: Sequence[Claim]
    ) -> tuple[list[Completion], list[Claim]]:
        """Publish, and again."""
        answers = super().publish_and_renew(ended, claims)
        self._line.call(*(add_reply(self.model, claim, reply) for claim, reply, _ in ended))
        return answers


def add_reply(model: str, claim: Claim, reply: Reply) -> tuple[str | bytes, ...]:
    """Return the command that publishes a reply, whatever became of its job."""
    stream = keys.replies(model, claim.job.reply_to)
    return ("XADD", stream, "NOMKSTREAM", "*", "reply", reply.SerializeToString())


BREAKS: Final[dict[str, type[GatedQueue]]] = {
    "": GatedQueue,
    "ack-first": AckFirstQueue,
    "publish-twice": PublishTwiceQueue,
}


class GatedEngine:
    """The test engine with the stage `inferring`; says when the wall clock is set."""

    def __init__(self, engine: Engine, gate: Gate) -> None:
        self._engine = engine
        self._gate = gate
        self._clock_s = time.time() - time.monotonic()

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Warm up the real one."""
        self._engine.warm_up(batch_sizes)

    def predict(self, images: UInt8Array) -> Float32Array:
        """Score, and then stop: the journal shows what the worker has in its model."""
        clock_s = time.time() - time.monotonic()
        if abs(clock_s - self._clock_s) > CLOCK_STEP_S:
            say(f"clock stepped {clock_s - self._clock_s:+.0f}")
            self._clock_s = clock_s
        scores = self._engine.predict(images)
        self._gate.reach("inferring")
        return scores


def main() -> int:
    """Serve until SIGTERM, or whatever happens before."""
    parser = arguments_parser()
    parser.add_argument("--stop-at", choices=STAGES)
    parser.add_argument("--gate", type=Path)
    parser.add_argument("--pass", type=int, default=0, dest="passes")
    parser.add_argument("--break", default="", choices=BREAKS, dest="broken")
    arguments = parser.parse_args()
    gate = Gate(arguments.stop_at, arguments.gate, arguments.passes)
    served = colours_served(arguments)

    def decode(image: bytes) -> UInt8Array:
        gate.reach("decoding")
        return served.decode(image)

    def load() -> Engine:
        return GatedEngine(served.load(), gate)

    # The composition root makes the queue itself; this is the one seam it leaves.
    vars(app)["WorkQueue"] = partial(BREAKS[arguments.broken], gate)
    return serve(arguments.redis_url, replace(served, decode=decode, load=load))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
