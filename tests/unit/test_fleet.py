"""Which model a request means, and whether to accept it."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace

import pytest

from despacho.job.v1.job_pb2 import ModelCard, WorkerCard
from dispatch.errors import (
    BrokerUnavailable,
    InvalidArgument,
    ModelLoading,
    ModelNotFound,
    NoWorker,
)
from dispatch.job_store import ModelLook
from dispatch.link import Link
from server.fleet import Fleet

LIMIT_S = 10.0

READY = WorkerCard(worker="w1", model_version="1", ready=True)
LOADING = WorkerCard(worker="w2", model_version="2")


class Store:
    """Models in memory."""

    def __init__(self) -> None:
        self.looks: dict[str, ModelLook] = {}
        self.is_away = False

    def put(self, name: str, *workers: WorkerCard) -> None:
        self.looks[name] = ModelLook(ModelCard(name=name), workers, 0, 0, 0)

    async def models(self) -> list[str]:
        if self.is_away:
            raise BrokerUnavailable("away")
        return sorted(self.looks)

    async def look(self, name: str) -> ModelLook | None:
        return self.looks[name]


class House:
    """A fleet on a store in memory; remembers which models are listened to."""

    def __init__(self, *, default_model: str = "", grace_s: float = 0) -> None:
        self.store = Store()
        self.heard: list[str] = []
        self.link = Link()
        self.link.restored()
        self.kept: list[str] = []
        self.fleet = Fleet(
            self.store,  # type: ignore[arg-type]
            self.link,
            self.listen,
            self.listen_to_no_other,
            default_model=default_model,
            no_worker_grace_s=grace_s,
        )

    async def listen(self, name: str) -> None:
        self.heard.append(name)

    async def until_current(self) -> None:
        while not self.fleet.is_current:
            await self.fleet.changed()
            self.link.restored()

    async def listen_to_no_other(self, names: Collection[str]) -> None:
        self.kept = list(names)


async def test_before_the_first_look_nothing_can_be_said() -> None:
    house = House()
    for name in ("", "m"):
        with pytest.raises(BrokerUnavailable):
            house.fleet.resolve(name)
    with pytest.raises(BrokerUnavailable):
        house.fleet.listed()
    assert not house.fleet.is_current


async def test_an_old_view_is_not_passed_off_as_that_of_now() -> None:
    house = House()
    house.store.put("m", READY)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(house.fleet.run())
        await house.until_current()
        assert [view.card.name for view in house.fleet.listed()] == ["m"]
        house.store.is_away = True
        while house.link.is_up:
            await house.fleet.changed()
        house.link.restored()
        # It can be reached again; what the models do there is not known yet.
        assert not house.fleet.is_current
        with pytest.raises(BrokerUnavailable):
            house.fleet.listed()
        # One that was started meanwhile would not be found.
        with pytest.raises(BrokerUnavailable):
            house.fleet.get("new")
        assert [view.card.name for view in house.fleet.models()] == ["m"]
        house.store.is_away = False
        await house.until_current()
        task.cancel()


async def test_a_broken_connection_makes_the_view_an_old_one() -> None:
    house = House()
    await house.fleet.refresh()
    assert house.fleet.listed() == []
    house.link.lost()
    with pytest.raises(BrokerUnavailable):
        house.fleet.listed()


async def test_a_model_nobody_served_is_not_found() -> None:
    house = House()
    await house.fleet.refresh()
    for name in ("", "m"):
        with pytest.raises(ModelNotFound):
            house.fleet.resolve(name)


async def test_no_name_means_the_only_model() -> None:
    house = House()
    house.store.put("m", READY)
    await house.fleet.refresh()
    assert house.fleet.resolve("") == "m"
    assert house.heard == ["m"]


async def test_no_name_among_several_is_ambiguous_unless_there_is_a_default() -> None:
    house, decided = House(), House(default_model="b")
    for each in (house, decided):
        each.store.put("a", READY)
        each.store.put("b", READY)
        await each.fleet.refresh()
    with pytest.raises(InvalidArgument, match="a, b"):
        house.fleet.resolve("")
    assert decided.fleet.resolve("") == "b"


async def test_a_model_that_is_gone_does_not_make_the_name_ambiguous() -> None:
    house = House()
    house.store.put("old")
    house.store.put("new", READY)
    await house.fleet.refresh()
    assert house.fleet.resolve("") == "new"
    house.store.put("third", LOADING)
    await house.fleet.refresh()
    with pytest.raises(InvalidArgument, match="new, third"):
        house.fleet.resolve("")


async def test_calls_are_refused_when_nobody_can_answer() -> None:
    house = House()
    house.store.put("m")
    await house.fleet.refresh()
    with pytest.raises(NoWorker):
        house.fleet.check_can_answer("m")
    house.store.put("m", LOADING)
    await house.fleet.refresh()
    with pytest.raises(ModelLoading):
        house.fleet.check_can_answer("m")
    house.store.put("m", LOADING, READY)
    await house.fleet.refresh()
    house.fleet.check_can_answer("m")
    assert house.fleet.get("m").live_versions == ("1",)


async def test_calls_are_accepted_within_the_grace() -> None:
    house = House(grace_s=60)
    house.store.put("m", READY)
    await house.fleet.refresh()
    house.store.put("m")
    await house.fleet.refresh()
    house.fleet.check_can_answer("m")


async def test_the_rate_is_that_of_retired_jobs() -> None:
    house = House()
    house.store.put("m", READY)
    await house.fleet.refresh()
    assert house.fleet.get("m").drain_per_s is None
    house.store.looks["m"] = replace(house.store.looks["m"], retired_jobs=1000)
    await house.fleet.refresh()
    rate = house.fleet.get("m").drain_per_s
    assert rate is not None
    assert rate > 0


async def test_a_model_that_redis_lost_stays_while_a_worker_may_announce_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    house = House()
    house.store.put("m", READY)
    await house.fleet.refresh()
    house.store.looks.clear()
    now_s += 2.9
    await house.fleet.refresh()
    house.fleet.check_can_answer("m")
    assert house.kept == ["m"]
    now_s += 0.2
    await house.fleet.refresh()
    assert house.kept == []
    with pytest.raises(ModelNotFound):
        house.fleet.get("m")


async def test_a_model_without_a_worker_is_forgotten_at_once() -> None:
    house = House(grace_s=60)
    house.store.put("m", READY)
    await house.fleet.refresh()
    house.store.put("m")
    await house.fleet.refresh()
    house.store.looks.clear()
    await house.fleet.refresh()
    with pytest.raises(ModelNotFound):
        house.fleet.get("m")


async def test_a_model_that_was_forgotten_begins_anew() -> None:
    house = House(grace_s=60)
    house.store.put("m", READY)
    await house.fleet.refresh()
    house.store.put("m")
    await house.fleet.refresh()
    house.store.looks.clear()
    await house.fleet.refresh()
    assert not house.fleet._rates
    assert not house.fleet._last_ready
    house.store.put("m")
    await house.fleet.refresh()
    house.fleet.check_can_answer("m")
