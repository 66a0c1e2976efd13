"""The steps of callers and of workers, and what is true after each of them."""

import sys
from collections import Counter

from hypothesis.stateful import (
    invariant,
)

from dispatch import keys
from dispatch.jobs import CALL_PRIORITIES, Outcome, Priority
from tests.dispatch_calls import LEASE_MS, LIMITS, MODEL, SERVER, SLOTS
from tests.dispatch_model import Key, Place
from tests.dispatch_state import DispatchState, keys_against_their_page
from tests.dispatch_workers import WorkerSteps


class DispatchMachine(WorkerSteps):
    """The real store and queue side by side with the model."""

    def teardown(self) -> None:
        """Drain everything, unless a rule has failed already, and look what is left."""
        try:
            if sys.exc_info()[0] is None:
                self.drain()
                self.assert_nothing_is_left()
        finally:
            for worker in self.workers.values():
                worker.queue.close()
            self.loop.run(self.close())
            self.loop.close()
            self.redis.close()

    def look(self) -> DispatchState:
        return DispatchState.read(self.redis, MODEL, SERVER)

    @invariant()
    def redis_is_as_the_model_says(self) -> None:
        state = self.look()
        self.assert_the_books_balance(state)
        self.assert_each_job_is_in_its_place_and_has_one_owner(state)
        self.assert_replies_are_published_once_and_never_after_a_cancel(state)
        self.assert_dead_letters_are_kept_within_their_bound(state)
        self.assert_missing_jobs_are_told_from_those_in_flight()

    def assert_the_books_balance(self, state: DispatchState) -> None:
        ended = Counter(state.totals)
        accepted = ended.pop("accepted", 0)
        assert accepted == ended.total() + sum(map(len, state.entries.values()))
        assert state.totals == self.model.totals
        calls_bytes = sum(sum(state.sizes[priority]) for priority in CALL_PRIORITIES)
        assert calls_bytes == self.model.load_bytes()
        assert state.load.get("bytes", 0) == calls_bytes

    def assert_each_job_is_in_its_place_and_has_one_owner(self, state: DispatchState) -> None:
        for priority in Priority:
            expected = sorted(self.model.in_flight(priority), key=lambda job: job.admission)
            assert state.entries[priority] == [job.id for job in expected]
        assert state.pending == {
            (job.submission.priority, job.entry_id): (job.owner, job.deliveries)
            for job in self.model.at(Place.CLAIMED)
        }

    def assert_replies_are_published_once_and_never_after_a_cancel(
        self, state: DispatchState
    ) -> None:
        for entry_id, job_id in state.replies.items():
            # A stream that is made anew may begin with the ids of its predecessor.
            self.published[self.streams_opened, entry_id] = job_id
        published = sorted(self.published.values())
        assert len(set(published)) == len(published)
        assert published == sorted(self.model.published)

    def assert_dead_letters_are_kept_within_their_bound(self, state: DispatchState) -> None:
        letters = [(job.id, job.size_bytes, job.submission.image) for job in self.model.dead]
        assert state.dead == letters
        if letters:
            assert state.load["dead_bytes"] == sum(job.size_bytes for job in self.model.dead)

    def assert_missing_jobs_are_told_from_those_in_flight(self) -> None:
        known = {job.id: job for job in self.model.jobs}
        missing = set(self.loop.run(self.store.missing(MODEL, list(known))))
        found = {job.id for job in known.values() if job.key is Key.ENTRY and job.is_in_flight}
        # One cancelled while it waited is not told from those behind it; nobody asks for it.
        unclear = {job.id for job in known.values() if job.is_retired and not job.was_claimed}
        assert not missing & found
        assert missing | found | unclear == known.keys()

    def drain(self) -> None:
        """Let one worker end all that is left, as if the others were gone."""
        for slot in SLOTS:
            self.a_worker_crashes(slot)
        for job in self.model.at(Place.CLAIMED):
            if job.owner != keys.RELEASED:
                self.set_idle(job, LEASE_MS + 1)
                job.is_lease_over = True
        last = self.workers[SLOTS[0]]
        while claims := [
            *self.claim(last, LIMITS.jobs),
            *self.reclaim(last, LIMITS.jobs, take_suspect=True),
        ]:
            for claim in claims:
                self.end(claim, Outcome.COMPLETED)

    def assert_nothing_is_left(self) -> None:
        self.redis_is_as_the_model_says()
        state = self.look()
        assert not any(state.entries.values())
        assert not state.pending
        assert state.load.get("bytes", 0) == 0
        assert state.totals.get("accepted", 0) == sum(job.is_retired for job in self.model.jobs)
        assert list(keys_against_their_page(self.redis)) == []
