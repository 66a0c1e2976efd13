"""Any order of steps with operations and calls on a real server, next to a model of both.

The steps of calls and of workers are those of `dispatch_machine.py`; workers take
operations as they take calls, so that all that can happen to a claim happens to both.
"""

import asyncio
import enum
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from despacho.job.v1.job_pb2 import Job, ModelCard
from dispatch import keys, operation_store
from dispatch.errors import OperationNotFound, QueueFull, RequestIdReused
from dispatch.jobs import CALL_PRIORITIES, Outcome, Priority
from dispatch.operation_store import OperationStore
from dispatch.operations import NewOperation, Operation, OperationKey, OperationLimits, Progress
from tests.dispatch_calls import (
    DEAD_LETTER_MAX_BYTES,
    LIMITS,
    MAX_DELIVERIES,
    MODEL,
    TIMEOUT_S,
    image_sizes,
    rooms,
    slots,
)
from tests.dispatch_machine import DispatchMachine
from tests.dispatch_model import Place
from tests.dispatch_state import DispatchState
from tests.operation_model import ModelOperation, OperationModel
from tests.redis_server import RedisServer

PATIENT: Final = OperationLimits(
    jobs=5, size_bytes=4000, kept=6, deadline_s=TIMEOUT_S, ttl_s=2 * TIMEOUT_S
)
HASTY: Final = replace(PATIENT, deadline_s=0.001)
"""What is submitted with these is overdue at once, and kept as long as any other."""

CALLERS: Final = ("me", "you")
PAGE: Final = 2
NEWEST: Final = 1 << 62
TOLERANCE_MS: Final = 1000
REFUSALS: Final = {
    f"model:{MODEL}/operations": "jobs",
    f"model:{MODEL}/operation-bytes": "bytes",
    "caller/operations": "kept",
}
"""The limit that an error names."""

Answered = TypeVar("Answered")

callers = st.sampled_from(CALLERS)
some_priorities = st.sampled_from([CALL_PRIORITIES, (Priority.OPERATION,)])


class Record(enum.Enum):
    """What becomes of a record while its job is in the stream."""

    KEPT = enum.auto()
    LOST = enum.auto()
    REPLACED = enum.auto()


class OperationMachine(DispatchMachine):
    """The real stores and queue side by side with the model."""

    operations: Bundle[ModelOperation] = Bundle("operations")
    model: OperationModel

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server)
        self.redis.set(keys.card(MODEL), ModelCard(name=MODEL).SerializeToString())
        self.model = OperationModel(LIMITS, dead_letter_max_bytes=DEAD_LETTER_MAX_BYTES)
        self.patient = OperationStore(server.url, PATIENT)
        self.hasty = OperationStore(server.url, HASTY)
        self.running = self.loop.run(self.started())

    async def started(self) -> "list[asyncio.Task[None]]":
        return [asyncio.create_task(store.run()) for store in (self.patient, self.hasty)]

    async def close(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.wait(self.running)
        for store in (self.patient, self.hasty):
            await store.__aexit__(None, None, None)
        await super().close()

    def ask(self, question: Coroutine[Any, Any, Answered]) -> Answered | None:
        """Return the answer to a caller, or None when there is nothing of that name."""
        try:
            return self.loop.run(question)
        except OperationNotFound:
            return None

    # --- What callers do ------------------------------------------------------

    def new_operation(self, caller: str, image_bytes: int) -> NewOperation:
        request_id = uuid4().hex
        image = (request_id.encode() * (image_bytes // 32 + 1))[:image_bytes]
        return NewOperation.of(
            Job(model=MODEL, top_k=1), image, caller=caller, request_id=request_id
        )

    def submit(self, new: NewOperation, limits: OperationLimits = PATIENT) -> Any:
        """Submit what is not known; return what a rule adds to `operations`."""
        expected = self.model.submit(new, limits)
        store = self.hasty if limits is HASTY else self.patient
        if isinstance(expected, str):
            with pytest.raises(QueueFull) as refusal:
                self.loop.run(store.submit(new, is_synced=False))
            assert REFUSALS[refusal.value.subject] == expected
            return multiple()
        seen = self.loop.run(store.submit(new, is_synced=False))
        entry_id = self.redis.hget(keys.operation(MODEL, expected.id), "entry")
        assert isinstance(entry_id, bytes)
        expected.entry_id = entry_id.decode()
        self.assert_is_seen(expected, seen)
        if expected.is_overdue:
            self.wait_until_after(seen.deadline_ms)
        return expected

    def wait_until_after(self, time_ms: int) -> None:
        while True:
            seconds, microseconds = self.redis.time()
            if seconds * 1000 + microseconds // 1000 > time_ms:
                return

    @rule(target=operations, caller=callers, image_bytes=image_sizes)
    def an_operation_arrives(self, caller: str, image_bytes: int) -> Any:
        return self.submit(self.new_operation(caller, image_bytes))

    @rule(target=operations, caller=callers, record=st.sampled_from(Record))
    def an_operation_without_time_arrives(self, caller: str, record: Record) -> Any:
        added = self.submit(self.new_operation(caller, 1), HASTY)
        return self.have_record(added, record) if isinstance(added, ModelOperation) else added

    def have_record(self, operation: ModelOperation, record: Record) -> Any:
        """Let this become of its record; return what a rule adds to `operations`."""
        if record is not Record.KEPT:
            self.a_record_is_lost(operation)
        if record is Record.REPLACED:
            return self.an_operation_is_submitted_again(operation)
        return operation

    @precondition(
        lambda self: self.model.operation_bytes() and not self.model.are_operations_full(PATIENT)
    )
    @rule(target=operations, caller=callers, beyond_bytes=st.integers(-1, 1))
    def an_operation_arrives_at_the_limit(self, caller: str, beyond_bytes: int) -> Any:
        overhead_bytes = keys.ENTRY_OVERHEAD_BYTES + self.new_operation(caller, 0).job.ByteSize()
        room_bytes = PATIENT.size_bytes - self.model.operation_bytes() - overhead_bytes
        return self.submit(self.new_operation(caller, max(0, room_bytes + beyond_bytes)))

    @rule(target=operations, operation=operations)
    def an_operation_is_submitted_again(self, operation: ModelOperation) -> Any:
        known = self.model.record(operation)
        if known is None:
            return self.submit(operation.new)
        seen = self.loop.run(self.patient.submit(operation.new, is_synced=False))
        self.assert_is_seen(known, seen)
        return multiple()

    @rule(operation=operations)
    def a_request_id_is_used_for_other_content(self, operation: ModelOperation) -> None:
        if self.model.record(operation) is not None:
            other = replace(operation.new, image=b"other")
            with pytest.raises(RequestIdReused):
                self.loop.run(self.patient.submit(other, is_synced=False))

    @rule(operation=operations)
    def an_operation_is_looked_at(self, operation: ModelOperation) -> None:
        known = self.model.record(operation)
        if known is not None and known.is_running_late:
            self.model.end(known, Outcome.EXPIRED)
        self.assert_is_found(known, self.ask(self.patient.get(operation.new.key)))

    @rule(operation=operations)
    def an_operation_is_cancelled(self, operation: ModelOperation) -> None:
        assert self.ask(self.patient.cancel(operation.new.key)) == self.cancel(operation)

    @rule(operation=operations)
    def an_operation_is_deleted(self, operation: ModelOperation) -> None:
        known = self.model.record(operation)
        assert self.ask(self.patient.delete(operation.new.key)) == self.cancel(operation)
        if known is not None:
            self.model.delete(known)
        else:
            # Its time is over: it no longer counts as one that the caller has.
            listed = self.model.listed.get(operation.caller, [])
            self.model.listed[operation.caller] = [each for each in listed if each != operation.id]

    def cancel(self, operation: ModelOperation) -> int | None:
        known = self.model.record(operation)
        if known is None:
            return None
        return 0 if known.is_retired else self.model.end(known, Outcome.CANCELLED)

    @rule(operation=operations)
    def somebody_else_asks(self, operation: ModelOperation) -> None:
        (other,) = set(CALLERS) - {operation.caller}
        key = replace(operation.new.key, caller=other)
        for question in (self.patient.get, self.patient.cancel, self.patient.delete):
            assert self.ask(question(key)) is None

    @precondition(lambda self: self.model.operations())
    @rule(caller=callers)
    def a_caller_lists_operations(self, caller: str) -> None:
        before: int | None = NEWEST
        listed: list[Operation] = []
        while before is not None:
            page = self.loop.run(self.patient.page(MODEL, caller, before=before, count=PAGE))
            assert len(page.operations) <= PAGE
            listed += page.operations
            before = page.next_before
        assert [each.job.id for each in listed] == self.model.list_ids(caller)
        known = {each.id: each for each in self.model.operations() if each.has_record}
        for seen in listed:
            self.assert_is_seen(known[seen.job.id], seen)

    # --- What workers do, beside what they do with calls ----------------------

    @precondition(lambda self: self.model.at(Place.WAITING))
    @rule(target=DispatchMachine.claims, slot=slots, room=rooms, priorities=some_priorities)
    def a_worker_claims_some_only(
        self, slot: str, room: int, priorities: tuple[Priority, ...]
    ) -> Any:
        return multiple(*self.claim(self.workers[slot], room, priorities))

    # Several steps in one, as chance alone seldom puts them together.
    @precondition(lambda self: self.model.at(Place.WAITING, Priority.OPERATION))
    @rule(target=operations, slot=slots, record=st.sampled_from(Record), is_poison=st.booleans())
    def a_worker_claims_and_ends_an_operation(
        self, slot: str, record: Record, *, is_poison: bool
    ) -> Any:
        (claim,) = self.claim(self.workers[slot], 1, (Priority.OPERATION,))
        operation = self.job_of(claim)
        assert isinstance(operation, ModelOperation)
        added = self.have_record(operation, record)
        if is_poison:
            claim = replace(claim, attempt=MAX_DELIVERIES)
        for _ in range(2):  # as if the first reply of Redis had been lost
            self.end(claim, Outcome.COMPLETED)
        return added

    # --- What time does -------------------------------------------------------

    @rule(operation=operations)
    def a_record_is_lost(self, operation: ModelOperation) -> None:
        """Before its time or with it."""
        known = self.model.record(operation)
        if known is not None:
            self.redis.delete(keys.operation(MODEL, known.id))
            known.has_record = False

    @precondition(lambda self: self.model.in_flight(Priority.OPERATION))
    @rule()
    def those_long_overdue_are_swept(self) -> None:
        assert self.loop.run(self.patient.end_overdue(MODEL, overdue_s=0)) == self.model.sweep()

    # --- What is always true --------------------------------------------------

    @invariant()
    def operations_are_as_the_model_says(self) -> None:
        state = self.look()
        self.assert_operations_have_limits_of_their_own(state)
        self.assert_those_that_ended_are_told_once(state)
        self.assert_each_caller_has_those_that_were_not_deleted()
        self.assert_each_is_found_as_it_is()

    def assert_operations_have_limits_of_their_own(self, state: DispatchState) -> None:
        entries_bytes = sum(state.sizes[Priority.OPERATION])
        assert entries_bytes == self.model.operation_bytes() <= PATIENT.size_bytes
        assert state.load.get("operation_bytes", 0) == entries_bytes
        assert len(state.entries[Priority.OPERATION]) <= PATIENT.jobs

    def assert_those_that_ended_are_told_once(self, state: DispatchState) -> None:
        assert state.done == self.model.done
        assert (self.redis.pttl(keys.done(MODEL)) > 0) is (len(state.done) > 0)

    def assert_each_caller_has_those_that_were_not_deleted(self) -> None:
        for caller in CALLERS:
            index = keys.operations(MODEL, caller)
            listed: Any = self.redis.zrange(index, 0, -1)
            assert [name.decode() for name in listed] == self.model.listed.get(caller, [])
            assert (self.redis.pttl(index) > 0) is (len(listed) > 0)

    def assert_each_is_found_as_it_is(self) -> None:
        known: dict[OperationKey, ModelOperation | None] = {}
        for each in self.model.operations():
            if each.has_record or each.new.key not in known:
                known[each.new.key] = each if each.has_record else None
        found = self.loop.run(self.found(known))
        for key, operation in known.items():
            self.assert_is_found(operation, found.get(key))

    async def found(
        self, known: dict[OperationKey, ModelOperation | None]
    ) -> dict[OperationKey, Operation]:
        # Looking at one whose time is over would end it; a rule does that.
        wanted = [key for key, each in known.items() if each is None or not each.is_running_late]
        looks = await asyncio.gather(*map(self.patient.get, wanted), return_exceptions=True)
        return {
            key: look
            for key, look in zip(wanted, looks, strict=True)
            if isinstance(look, Operation)
        }

    def assert_is_found(self, known: ModelOperation | None, seen: Operation | None) -> None:
        if known is None or seen is None:
            assert known is None or known.is_running_late
            assert seen is None
        else:
            self.assert_is_seen(known, seen)

    def assert_is_seen(self, known: ModelOperation, seen: Operation) -> None:
        assert seen.job == known.new.job
        assert (seen.progress, seen.attempt) == (known.progress, known.attempt)
        assert seen.position in self.model.positions(known)
        assert seen.deadline_ms - seen.created_ms == round(known.limits.deadline_s * 1000)
        if seen.progress is not Progress.DONE:
            assert seen.reply is None
            assert seen.expires_ms - seen.created_ms == life_ms(known.limits)
            return
        assert known.reply is not None
        assert seen.reply is not None
        assert seen.reply.job_id == known.id
        # Each has another reason: neither the reply nor its time changes again.
        assert seen.reply.failure.reason == known.reply.failure.reason
        assert seen.ended_ms is not None
        known.ended_ms = known.ended_ms or seen.ended_ms
        assert seen.ended_ms == known.ended_ms
        kept_ms = seen.expires_ms - seen.ended_ms
        assert abs(kept_ms - known.limits.ttl_s * 1000) < TOLERANCE_MS

    def assert_nothing_is_left(self) -> None:
        super().assert_nothing_is_left()
        self.operations_are_as_the_model_says()
        assert int(self.redis.hget(keys.load(MODEL), "operation_bytes") or 0) == 0
        assert all(each.is_retired for each in self.model.operations())


def life_ms(limits: OperationLimits) -> int:
    """How long an operation lives that nobody ends."""
    return round((limits.deadline_s + limits.ttl_s) * 1000)


# Shortening an example that fails takes longer than the usual limit allows.
@pytest.mark.timeout(400)
def test_any_order_of_steps_keeps_the_promises_of_operations(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What happens by chance is not in the model: they are looked after where there are too many.
    monkeypatch.setattr(operation_store, "PRUNE_ONE_IN", 1 << 62)

    class OnThisServer(OperationMachine):
        def __init__(self) -> None:
            super().__init__(redis_server)

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            derandomize=False,
            print_blob=True,
            # One at a time: each is shortened by running it some hundred times.
            report_multiple_bugs=False,
        ),
    )
