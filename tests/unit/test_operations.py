"""What operations are allowed and told, whatever the broker has heard."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from despacho.job.v1.job_pb2 import Job, ModelCard
from dispatch.errors import (
    BrokerUnavailable,
    DespachoError,
    ModelNotFound,
    OperationNotFound,
    OutcomeUnknown,
    QueueFull,
    RequestIdReused,
)
from dispatch.link import Link
from dispatch.operations import NewOperation, Operation, OperationKey, Progress
from server import surely
from server.operations import KEPT_RETRY_S, Operations
from tests.front_end import FakeFleet, view_of

KEY = OperationKey("m", "1", "me")
REQUEST_ID = "c0ffee"


def seen(job: Job, progress: Progress) -> Operation:
    return Operation(
        job=job,
        created_ms=1,
        deadline_ms=2,
        ended_ms=None,
        expires_ms=3,
        now_ms=1,
        progress=progress,
        attempt=0,
        position=1,
        reply=None,
    )


class FakeNews:
    """News that are being read, of nothing but what has been."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @contextmanager
    def expect(self, model: str, operation_id: str) -> Iterator[asyncio.Event]:
        del model, operation_id
        yield self.event

    async def watch(self, model: str) -> None:
        del model


class FakeStore:
    """Keeps keys; `failures` are raised first, one a call, before or after it is done."""

    def __init__(self) -> None:
        self.kept: set[OperationKey] = set()
        self.failures: list[DespachoError] = []
        self.is_done_first = True
        self.asked_for: list[Sequence[OperationKey]] = []
        self.looks: list[Progress | DespachoError] = []

    async def submit(self, new: NewOperation, *, is_synced: bool) -> Operation:
        assert not is_synced
        self._fail()
        self.kept.add(new.key)
        return seen(new.job, Progress.QUEUED)

    async def get(self, key: OperationKey) -> Operation:
        look = self.looks.pop(0)
        if isinstance(look, DespachoError):
            raise look
        return seen(Job(id=key.id), look)

    async def first_of(self, candidates: Sequence[OperationKey]) -> OperationKey | None:
        self.asked_for.append(candidates)
        return next((key for key in candidates if key in self.kept), None)

    async def delete(self, key: OperationKey) -> int:
        if not self.is_done_first:
            self._fail()
        if key not in self.kept:
            raise OperationNotFound(f"models/{key.model}/operations/{key.id}")
        self.kept.discard(key)
        self._fail()
        return 1

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class House:
    """Operations of the models `m` and `n`, over a fake store."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.link = Link()
        self.link.restored()
        self.fleet = FakeFleet()
        self.fleet.views = {name: view_of(ModelCard(name=name)) for name in ("m", "n")}
        self.news = FakeNews()
        self.operations = Operations(
            self.store,  # type: ignore[arg-type]
            self.link,
            self.fleet,
            self.news,  # type: ignore[arg-type]
        )

    async def submit(
        self, model: str = "m", *, request_id: str = REQUEST_ID, caller: str = "me"
    ) -> Operation:
        return await self.operations.submit(
            Job(model=model),
            b"image",
            caller=caller,
            request_id=request_id,
            is_synced=False,
            timeout_s=30,
        )


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(surely, "PAUSE_S", 0)
    return House()


async def test_a_request_id_that_was_used_for_another_model_is_refused(house: House) -> None:
    await house.submit("m")
    with pytest.raises(RequestIdReused, match=REQUEST_ID):
        await house.submit("n")
    assert [key.model for key in house.store.kept] == ["m"]


async def test_a_request_id_may_be_repeated_for_its_own_model(house: House) -> None:
    first = await house.submit("m")
    assert (await house.submit("m")).job.id == first.job.id
    assert [[key.model for key in keys] for keys in house.store.asked_for] == [["n"], ["n"]]


async def test_an_operation_is_found_without_its_model(house: House) -> None:
    submitted = await house.submit("n")
    key = await house.operations.find(submitted.job.id, "me", timeout_s=30)
    assert (key.model, key.id, key.caller) == ("n", submitted.job.id, "me")
    with pytest.raises(OperationNotFound, match=f"models/-/operations/{submitted.job.id}"):
        await house.operations.find(submitted.job.id, "you", timeout_s=30)


async def test_a_request_id_is_the_callers_own(house: House) -> None:
    await house.submit("m", caller="me")
    await house.submit("n", caller="you")


async def test_without_a_request_id_nothing_is_looked_up_and_each_is_another(house: House) -> None:
    ids = {(await house.submit(request_id="")).job.id for _ in range(3)}
    assert len(ids) == 3
    assert house.store.asked_for == []


@pytest.mark.parametrize(
    ("subject", "retry_after_s"),
    [
        # A tenth of the 7 operations of the fake, at 20 a second: see `room_in_s`.
        ("model:m/operations", (0, 1)),
        ("caller/operations", (KEPT_RETRY_S, KEPT_RETRY_S)),
        ("server/jobs", (3, 3)),
    ],
)
async def test_a_refusal_says_when_to_come_back(
    house: House, subject: str, retry_after_s: tuple[float, float]
) -> None:
    house.store.failures = [QueueFull(subject, "full", retry_after_s=3)]
    with pytest.raises(QueueFull) as caught:
        await house.submit()
    least, most = retry_after_s
    assert least <= caught.value.retry_after_s <= most


async def test_a_refusal_stays_one_though_the_model_is_forgotten_meanwhile(house: House) -> None:
    house.store.failures = [QueueFull("model:gone/operations", "full", retry_after_s=3)]
    with pytest.raises(QueueFull) as caught:
        await house.submit("gone")
    assert caught.value.retry_after_s == 3


async def test_a_submission_waits_for_a_redis_that_came_back_empty(house: House) -> None:
    house.store.failures = [ModelNotFound("m"), ModelNotFound("m")]
    submitted = await house.submit("m")
    assert [key.id for key in house.store.kept] == [submitted.job.id]


async def test_a_model_that_was_forgotten_is_not_waited_for(house: House) -> None:
    house.store.failures = [ModelNotFound("m")]
    house.fleet.views["m"] = view_of(ModelCard(name="m"), ready_workers=0)
    with pytest.raises(ModelNotFound):
        await house.submit("m")
    house.store.failures = [ModelNotFound("gone")]
    with pytest.raises(ModelNotFound):
        await house.submit("gone")


@pytest.mark.parametrize("is_done_first", [False, True])
@pytest.mark.parametrize(
    "failures",
    [
        [OutcomeUnknown("cut")],
        [OutcomeUnknown("cut"), OutcomeUnknown("cut")],
        [OutcomeUnknown("cut"), BrokerUnavailable("away")],
    ],
)
async def test_a_deletion_that_is_repeated_may_find_that_it_was_done(
    house: House, failures: Iterable[DespachoError], *, is_done_first: bool
) -> None:
    house.store.kept = {KEY}
    house.store.failures = list(failures)
    house.store.is_done_first = is_done_first
    await house.operations.delete(KEY, timeout_s=30)
    assert house.store.kept == set()


async def test_a_first_deletion_that_finds_nothing_is_told(house: House) -> None:
    with pytest.raises(OperationNotFound):
        await house.operations.delete(KEY, timeout_s=30)


async def test_a_wait_that_finds_others_looking_looks_again(house: House) -> None:
    full = QueueFull("server/jobs", "too many requests to send")
    house.store.looks = [Progress.QUEUED, full, full, Progress.DONE]
    assert (await house.operations.wait(KEY, timeout_s=30)).progress is Progress.DONE


async def test_a_wait_that_finds_others_looking_ends_in_time(house: House) -> None:
    full = QueueFull("server/jobs", "too many requests to send")
    house.store.looks = [Progress.QUEUED, *[full] * 9]
    assert (await house.operations.wait(KEY, timeout_s=0.3)).progress is Progress.QUEUED
    assert len(house.store.looks) >= 6


async def test_a_wait_goes_on_when_the_broker_is_back(house: House) -> None:
    away = (OutcomeUnknown("cut"), BrokerUnavailable("away"))
    house.store.looks = [Progress.QUEUED, *away, Progress.DONE]
    assert (await house.operations.wait(KEY, timeout_s=30)).progress is Progress.DONE


async def test_a_wait_looks_once_for_all_the_news_before(house: House) -> None:
    house.news.event.set()
    house.store.looks = [Progress.QUEUED] * 9
    assert (await house.operations.wait(KEY, timeout_s=0.3)).progress is Progress.QUEUED
    # The first, the one for the news, and the last, for which a busy machine may have no time.
    assert len(house.store.looks) >= 6
