"""How listeners to the live figures fare when something goes wrong."""

import json
import threading
from collections.abc import Iterator
from typing import Any, cast

import jsonschema_rs
import pytest
import structlog

from client.errors import AccessDenied, Unavailable
from client.messages import Messages
from gateway import stats_hub
from gateway.openapi_parts import PROBLEM_SCHEMA
from gateway.stats_hub import StatsHub
from prediction.v1 import admin_pb2

LIMIT_S = 10.0
KEY = (("x-api-key", "k"),)


class Watched:
    """A call that shows figures until it is cancelled."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[admin_pb2.WatchStatsResponse]:
        yield admin_pb2.WatchStatsResponse()
        assert self._cancelled.wait(LIMIT_S)

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()


class Surprising:
    """A front-end whose first call fails as no front-end should."""

    def __init__(self) -> None:
        self.call_count = 0
        self.metadata: tuple[tuple[str, str], ...] = ()

    def watch_stats(self, period_s: float, metadata: Any, timeout_s: float | None = None) -> Any:
        del period_s, timeout_s
        self.metadata = tuple(metadata)
        self.call_count += 1
        if self.call_count == 1:
            raise RuntimeError("a secret of the gateway")
        return Watched()


@pytest.fixture
def front_end() -> Surprising:
    return Surprising()


@pytest.fixture
def hub(front_end: Surprising) -> StatsHub:
    return StatsHub(cast("Messages", front_end), max_listeners=2)


def test_a_surprise_ends_the_figures_and_is_told(hub: StatsHub, front_end: Surprising) -> None:
    with structlog.testing.capture_logs() as lines, hub.listening(KEY) as feed:
        number, event = feed.next(0, LIMIT_S)
        # And then there is nothing more to wait for.
        assert feed.next(number, LIMIT_S) == (number, "")
        assert feed.has_ended
    name, data = event.strip().split("\n")
    assert name == "event: problem"
    problem = json.loads(data.removeprefix("data: "))
    jsonschema_rs.Draft202012Validator(PROBLEM_SCHEMA).validate(problem)
    assert problem["reason"] == "INTERNAL"
    assert front_end.metadata == (*KEY, ("x-request-id", problem["request_id"]))
    assert "secret" not in event
    (line,) = lines
    assert line["exc_info"]
    assert line["request_id"] == problem["request_id"]


def test_who_comes_after_a_surprise_gets_figures(hub: StatsHub, front_end: Surprising) -> None:
    # The first listener stays, and so would a feed that nobody declared dead.
    with hub.listening(KEY) as first:
        number, _ = first.next(0, LIMIT_S)
        assert first.next(number, LIMIT_S)[1] == ""
        with hub.listening(KEY) as second:
            assert second.next(0, LIMIT_S)[1].startswith("event: stats")
    assert front_end.call_count == 2


def test_who_comes_while_the_gateway_stops_is_not_kept(
    hub: StatsHub, front_end: Surprising
) -> None:
    front_end.call_count = 1  # the first one would end by itself
    # A page comes again at once, and nothing would end its request once more.
    hub.close()
    with hub.listening(KEY) as feed:
        number = 0
        while not feed.has_ended:
            number, event = feed.next(number, LIMIT_S / 10)
            assert event or feed.has_ended


class Ageing:
    """A front-end that ends each of its first calls, of which the third brings nothing.

    None begins before what the last one brought is taken.
    """

    def __init__(self) -> None:
        self.call_count = 0
        self.taken = threading.Semaphore()

    def watch_stats(self, period_s: float, metadata: Any, timeout_s: float | None = None) -> Any:
        del period_s, metadata, timeout_s
        assert self.taken.acquire(timeout=LIMIT_S)
        self.call_count += 1
        return Watched() if self.call_count > 3 else self._ended(self.call_count)

    def _ended(self, number: int) -> Iterator[admin_pb2.WatchStatsResponse]:
        if number < 3:
            yield admin_pb2.WatchStatsResponse(servers=number)
        raise Unavailable("max connection age")


def test_a_connection_that_ended_is_no_problem_unless_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stats_hub, "PAUSE_S", 0)
    front_end = Ageing()
    hub = StatsHub(cast("Messages", front_end), max_listeners=1)
    names: list[str] = []
    with hub.listening(KEY) as feed:
        number = 0
        while len(names) < 4:
            number, event = feed.next(number, LIMIT_S)
            names.append(event.split("\n")[0])
            front_end.taken.release()
    assert names == ["event: stats", "event: stats", "event: problem", "event: stats"]


class Keyed:
    """A front-end from which a key may be taken."""

    def __init__(self) -> None:
        self.is_known = True
        self.calls: list[tuple[Watched, float | None]] = []

    def watch_stats(self, period_s: float, metadata: Any, timeout_s: float | None = None) -> Any:
        del period_s, metadata
        watched = Watched() if self.is_known else Refused()
        self.calls.append((watched, timeout_s))
        return watched


class Refused(Watched):
    """A call with a key that is none."""

    def __iter__(self) -> Iterator[admin_pb2.WatchStatsResponse]:
        raise AccessDenied("not one of ours")


def test_who_comes_later_is_asked_for_a_key_as_well() -> None:
    front_end = Keyed()
    hub = StatsHub(cast("Messages", front_end), max_listeners=2)
    with hub.listening(KEY) as first:
        number, _ = first.next(0, LIMIT_S)
        with hub.listening(KEY) as second:
            assert second is first
        # Of the second's own call only the first figures were wanted, and soon.
        (lasting, no_limit), (short, limit_s) = front_end.calls
        assert no_limit is None
        assert limit_s == stats_hub.FIRST_S
        assert short.is_cancelled
        front_end.is_known = False
        for _ in range(3):
            with pytest.raises(AccessDenied), hub.listening(KEY):
                pass
        # Nobody's place is lost, and the first listener's call is not ended.
        front_end.is_known = True
        with hub.listening(KEY) as second:
            assert second.next(0, LIMIT_S)[0] == number
        assert not lasting.is_cancelled


class Away(Keyed):
    """A front-end that has no figures for now."""

    def watch_stats(self, period_s: float, metadata: Any, timeout_s: float | None = None) -> Any:
        super().watch_stats(period_s, metadata, timeout_s)
        return Failing()


class Failing(Watched):
    """A call that says so."""

    def __iter__(self) -> Iterator[admin_pb2.WatchStatsResponse]:
        raise Unavailable("no Redis", reason="BROKER_UNAVAILABLE")


def test_who_comes_later_is_told_like_the_first_that_there_are_no_figures_for_now() -> None:
    hub = StatsHub(cast("Messages", Away()), max_listeners=2)
    with hub.listening(KEY) as first:
        assert first.next(0, LIMIT_S)[1].startswith("event: problem")
        with hub.listening(KEY) as second:
            assert second.next(0, LIMIT_S)[1].startswith("event: problem")
