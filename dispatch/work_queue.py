"""The workers' door to Redis: claim, complete, renew, reclaim, give back.

Blocking, and safe to use from several threads.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from redis import exceptions

from despacho.job.v1.job_pb2 import DeadLetter, ModelCard, Reply, WorkerCard
from dispatch import claiming, keys, retiring, scripts
from dispatch.blocking_line import REPLY_TIMEOUT_S, BlockingLine, raise_first, says
from dispatch.claim_step import ClaimStep
from dispatch.errors import BrokerUnavailable
from dispatch.jobs import Claim, Completion, Priority, Room
from dispatch.leftovers import Leftovers
from dispatch.retiring import Ended
from dispatch.scripts import Command
from dispatch.worker_clock import WorkerClock

LEASE_S: Final = 3.0
"""How long a claim lives without renewal: a lost worker is noticed within this and a second."""

FRESH_LEASE_MS: Final = 100
"""A look at jobs on the way of an image renews no lease that is younger: that costs Redis as much
again, and a line in its file."""

BLOCK_MS: Final = 500

CONSUMER_GONE_MS: Final = 3_600_000

_NEVER_MS: Final = 1 << 50

_PRIORITIES: Final = tuple(Priority)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What came from others' hands."""

    claims: list[Claim]
    has_suspects: bool
    """Whether jobs of lost workers are left that nobody has taken yet."""


class WorkQueue:
    """The jobs of one model, for one worker."""

    def __init__(self, url: str, model: str, worker: str) -> None:
        """Remember where Redis is; connect on the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            model: name of the model.
            worker: name of this worker, unique among all that ever were.
        """
        self.model = model
        self.worker = worker
        self._streams = keys.job_streams(model)
        self._line = BlockingLine(url)
        self._clock = WorkerClock()
        self._step = ClaimStep()
        self._left = defaultdict[tuple[Priority, ...], Leftovers](Leftovers)

    def now_ms(self) -> float:
        """Return the Redis time, from announcements and the monotonic clock."""
        return self._clock.now_ms()

    def open(self) -> None:
        """Create the job streams and their group where they are missing, and try what takes jobs.

        A worker without the rights for that must not announce itself: calls would wait for it.

        Raises:
            BrokerUnavailable: try again.
        """
        raise_first(self._line.call(scripts.OPEN.call(self._streams, (keys.GROUP,))))
        stream = self._streams[0]
        own_jobs = ("XREADGROUP", "GROUP", keys.GROUP, self.worker, "COUNT", 1, "STREAMS", stream)
        raise_first(self._line.call(("XINFO", "GROUPS", stream), (*own_jobs, "0")))

    def announce(
        self,
        worker: WorkerCard,
        model: ModelCard,
        *,
        has_changed: bool,
        has_worked: bool = False,
    ) -> float:
        """Say that this worker lives, for `keys.WORKER_TTL_MS`.

        Args:
            worker: this worker.
            model: what it serves.
            has_changed: whether the cards are others than last time, or none was told yet.
            has_worked: whether the card of the worker is.

        Returns:
            How long Redis took to hear and to answer, seconds.

        Raises:
            BrokerUnavailable: try again.
        """
        # Always: a Redis that lost everything must learn of the model again.
        raise_first(self._line.call(scripts.REGISTER.call([keys.MODELS], (self.model,))))
        sent = time.monotonic()
        (reply,) = self._line.call(
            scripts.ANNOUNCE.call(
                [
                    keys.worker(self.model, self.worker),
                    keys.workers(self.model),
                    keys.card(self.model),
                    keys.card_of(self.model),
                ],
                (
                    self.worker,
                    keys.WORKER_TTL_MS,
                    worker.SerializeToString(),
                    model.SerializeToString(),
                    "both" if has_changed else "worker" if has_worked else "none",
                    "ready" if worker.ready else "loading",
                ),
            )
        )
        raise_first([reply])
        heard = time.monotonic()
        self._clock.note(int(reply), sent_s=sent, heard_s=heard)
        return heard - sent

    def leave(self) -> None:
        """Take this worker's name off the list.

        Raises:
            BrokerUnavailable: the name stays until it expires.
        """
        names = [keys.worker(self.model, self.worker), keys.workers(self.model), *self._streams]
        arguments = (keys.GROUP, self.worker, keys.RELEASED, CONSUMER_GONE_MS)
        self._line.call(scripts.LEAVE.call(names, arguments))

    def claim(
        self, priorities: Sequence[Priority], room: Room, *, block: bool, at_once: int = 1
    ) -> list[Claim]:
        """Take waiting jobs.

        Args:
            priorities: of which to take, the first ones first.
            room: how much to take; a stream more than the first may add to what comes while this
                waits.
            block: whether to wait up to `BLOCK_MS` when there are none.
            at_once: how many to take of those that come then, of each priority; what is left is
                for others who wait.

        Raises:
            BrokerUnavailable: what was taken, if anything was, comes back by `reclaim`, after a
                lease. Once it has heard of some, it returns those instead.
        """
        streams = [keys.jobs(self.model, priority) for priority in priorities]
        left = self._left[tuple(priorities)]
        claims: list[Claim] = []
        # If there was no more than was taken just now, it is likely so again.
        if not block or not left.are_none():
            claims, is_all = self._waiting(streams, room)
            left.note(none=is_all)
        if not claims and block and room:
            claims, is_all = self._first(streams, self._step.jobs(room), at_once, left)
            left.note(none=is_all)
        return claims

    def _first(
        self, streams: Sequence[str], most: int, at_once: int, left: Leftovers
    ) -> tuple[list[Claim], bool]:
        """Wait for jobs, and take the first that come; return also whether nothing is left."""
        step = min(most, at_once)
        # Where what was taken says nothing about what is left, it is asked along with it.
        asks = [claiming.counting(streams)] if step < most and left.are_in_doubt() else []
        replies = self._line.call(
            claiming.reading(self.worker, streams, step, BLOCK_MS),
            *asks,
            timeout_s=REPLY_TIMEOUT_S + BLOCK_MS / 1000,
        )
        claims = self._claims_in(replies[:1])
        if not claims or step == most:
            return claims, len(claims) < step
        if not asks:
            left.note_unasked()
            # Where priorities are mixed, the higher ones are to be taken first.
            return claims, len({claim.priority for claim in claims}) == 1
        counts = replies[1]
        is_all = isinstance(counts, list) and not any(map(int, counts))
        left.note_asked(none=is_all)
        return claims, is_all

    def _waiting(self, streams: Sequence[str], room: Room) -> tuple[list[Claim], bool]:
        """Take what is in the first streams first; return also whether nothing is left."""
        counts = dict(zip(streams, self._counts(streams) if room else (), strict=False))
        claims: list[Claim] = []
        while any(counts.values()) and (left := room.without(claims)):
            reads: list[Command] = []
            step = self._step.jobs(left)
            for stream, count in counts.items():
                if wanted := min(count, step):
                    reads.append(claiming.reading(self.worker, [stream], wanted))
                    counts[stream] -= wanted
                    step -= wanted
            try:
                claims += self._claims_in(self._line.call(*reads))
            except BrokerUnavailable:
                if claims:
                    # They are ours; left behind, they would count as those of a lost worker.
                    break
                raise
        return claims, bool(room) and not any(counts.values())

    def _counts(self, streams: Sequence[str]) -> list[int]:
        command = claiming.counting(streams)
        (counts,) = self._line.call(command)
        if says(counts, "NOGROUP"):
            # Somebody emptied Redis, or a part of it.
            self.open()
            (counts,) = self._line.call(command)
        raise_first([counts])
        return [int(count) for count in counts]

    def _claims_in(self, replies: Sequence[Any]) -> list[Claim]:
        """Return what was taken."""
        good = [reply for reply in replies if not isinstance(reply, exceptions.ResponseError)]
        claims = []
        for name, entries in chain.from_iterable(reply or () for reply in good):
            priority = _PRIORITIES[self._streams.index(name.decode())]
            for entry_id, fields in entries:
                claim = self._parsed(priority, entry_id, fields, attempt=1)
                if claim is not None:
                    claims.append(claim)
        self._step.note(claims)
        # With claims, errors are for the next time: these would count as those of a lost worker.
        if not claims and any(says(reply, "NOGROUP") for reply in replies):
            # Somebody emptied Redis: begin again with an empty queue.
            self.open()
        elif not claims:
            raise_first(replies)
        return claims

    def _parsed(
        self, priority: Priority, entry_id: bytes, fields: Sequence[bytes], *, attempt: int
    ) -> Claim | None:
        claim = claiming.claim_of(priority, entry_id, fields, attempt=attempt)
        if claim is None:
            # Nobody waits for it, and it would come back for ever.
            stream = keys.jobs(self.model, priority)
            self._line.call(("XACK", stream, keys.GROUP, entry_id), ("XDEL", stream, entry_id))
        return claim

    def complete(self, ended: Sequence[Ended]) -> list[Completion]:
        """Publish replies and retire their jobs; harmless when repeated.

        Returns:
            What became of each. When this is repeated, what was published the first
            time comes out as too late.

        Raises:
            BrokerUnavailable: some may be done, some not; repeat them.
        """
        completions, _ = self.complete_and_renew(ended, ())
        return completions

    def complete_and_renew(
        self, ended: Sequence[Ended], claims: Sequence[Claim]
    ) -> tuple[list[Completion], list[Claim]]:
        """Do what `complete` does and then what `renew` does, in one round trip.

        Leases younger than `FRESH_LEASE_MS` are not renewed.

        Returns:
            What became of each reply, and which of the claims were lost.

        Raises:
            BrokerUnavailable: some may be done, some not; repeat them.
        """
        if not ended and not claims:
            return [], []  # to have asked nothing would count as having reached Redis
        size = retiring.BATCH_JOBS
        parts = [ended[at : at + size] for at in range(0, len(ended), size)]
        replies = self._line.call(
            *(retiring.completing(self.model, part) for part in parts),
            *([self._renewing(claims, fresh_ms=FRESH_LEASE_MS)] if claims else []),
        )
        raise_first(replies)
        lost = replies.pop() if claims else ()
        completions = list(chain.from_iterable(replies))
        raise_first(completions)
        return [Completion(each) for each in completions], [claims[each - 1] for each in lost]

    def quarantine(
        self, claim: Claim, reply: Reply, letter: DeadLetter, max_bytes: int
    ) -> Completion:
        """Set a job aside on which workers died, and tell its caller; harmless when repeated.

        Args:
            claim: the job.
            reply: what its caller is told.
            letter: what an operator is told.
            max_bytes: most bytes of dead letters; the oldest make room.

        Returns:
            What became of the reply.

        Raises:
            BrokerUnavailable: repeat it.
        """
        (published,) = self._line.call(
            retiring.quarantining(self.model, claim, reply, letter, max_bytes)
        )
        raise_first([published])
        return Completion(published)

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Keep the leases of claimed jobs.

        Returns:
            Those that were retired or taken over: do not work on them.

        Raises:
            BrokerUnavailable: try again before the lease ends.
        """
        (lost,) = self._line.call(self._renewing(claims, fresh_ms=0))
        raise_first([lost])
        return [claims[each - 1] for each in lost]

    def _renewing(self, claims: Sequence[Claim], *, fresh_ms: int) -> Command:
        arguments = (keys.GROUP, self.worker, fresh_ms, *_places(claims))
        return scripts.RENEW.call(self._streams, arguments)

    def give_back(self, claims: Sequence[Claim]) -> int:
        """Let any worker take these jobs at once, without counting an attempt.

        Raises:
            BrokerUnavailable: they are reclaimed when their leases end.
        """
        arguments = (keys.GROUP, self.worker, keys.RELEASED, *_places(claims))
        (count,) = self._line.call(scripts.GIVE_BACK.call(self._streams, arguments))
        raise_first([count])
        return int(count)

    def reclaim(self, *, room: int, take_suspect: bool) -> Reclaimed:
        """Take over jobs that were given back, and at most one of a lost worker.

        Nothing of a lost worker is taken within a lease after Redis was away: idle
        times count its absence, and live workers first need to renew.

        Args:
            room: most jobs to take that were given back, or that this worker claimed
                and never heard of; one it still holds may be among them.
            take_suspect: whether to take one of a lost worker; it must then run alone.

        Raises:
            BrokerUnavailable: what was taken comes back with a later call.
        """
        may_judge = self._line.reachable_for_s > LEASE_S
        idle_ms = round(LEASE_S * 1000) if may_judge else _NEVER_MS
        (reply,) = self._line.call(
            scripts.RECLAIM.call(
                self._streams,
                (
                    *(keys.GROUP, self.worker, keys.RELEASED),
                    *(room, idle_ms, int(take_suspect)),
                ),
            )
        )
        if says(reply, "NOGROUP"):
            self.open()
            return Reclaimed([], has_suspects=False)
        raise_first([reply])
        suspects, *taken = reply
        claims = []
        for index, entry_id, attempt in zip(taken[::3], taken[1::3], taken[2::3], strict=True):
            (entries,) = self._line.call(("XRANGE", self._streams[index - 1], entry_id, entry_id))
            for _, fields in entries:
                claim = self._parsed(_PRIORITIES[index - 1], entry_id, fields, attempt=attempt)
                if claim is not None:
                    claims.append(claim)
        return Reclaimed(claims, has_suspects=suspects > 0)

    def close(self) -> None:
        """Close the connections."""
        self._line.close()


def _places(claims: Sequence[Claim]) -> list[str | int]:
    return [
        place
        for claim in claims
        for place in (_PRIORITIES.index(claim.priority) + 1, claim.entry_id)
    ]
