"""How long the client goes on trying: a clock that stands still unless one rests."""

import math
import random

import pytest

from client.channel import SERVICE_CONFIG
from client.errors import DespachoError, InvalidImage, Overloaded, Unavailable, Unreachable
from client.patience import (
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    MIN_PAUSE_S,
    SPREAD,
    WAIT_SHARE_S,
    Patience,
    Vigil,
)
from tests.fake_operations import RestingClock


@pytest.fixture
def clock() -> RestingClock:
    return RestingClock()


def full(retry_after_s: float | None) -> Overloaded:
    return Overloaded("full", retry_after_s=retry_after_s)


def pause_s(
    patience: Patience, refusal: DespachoError, *, was_reached: bool = True
) -> float | None:
    return patience.pause_s(refusal, was_reached=was_reached)


def test_waits_are_never_shorter_than_asked_for_and_differ(clock: RestingClock) -> None:
    waits = [pause_s(clock.patience(100), full(2)) for _ in range(50)]
    known = [wait for wait in waits if wait is not None]
    assert len(set(known)) == 50
    assert min(known) >= 2
    assert max(known) <= 2 * SPREAD
    assert max(known) - min(known) > 0.5


@pytest.mark.parametrize("refusal", [full(None), InvalidImage("too large", retry_after_s=1)])
def test_what_the_server_gives_no_hint_for_is_not_tried_again(
    clock: RestingClock, refusal: DespachoError
) -> None:
    assert pause_s(clock.patience(100), refusal) is None


def test_a_server_that_is_away_is_asked_less_and_less_often(clock: RestingClock) -> None:
    patience = clock.patience(60)
    pauses = []
    while (pause := pause_s(patience, Unreachable("refused"))) is not None:
        pauses.append(pause)
        clock.rest(pause)
    assert FIRST_PAUSE_S <= pauses[0] <= FIRST_PAUSE_S * SPREAD
    assert MAX_PAUSE_S <= pauses[-1] <= MAX_PAUSE_S * SPREAD
    assert patience.left_s() <= MAX_PAUSE_S * SPREAD


def test_a_server_that_says_when_it_is_back_is_not_asked_before(clock: RestingClock) -> None:
    pause = pause_s(clock.patience(60), Unavailable("loading", retry_after_s=20))
    assert pause is not None
    assert 20 <= pause <= 20 * SPREAD


def test_an_address_that_never_answered_is_not_waited_for(clock: RestingClock) -> None:
    patience = clock.patience(60)
    assert pause_s(patience, Unreachable("refused"), was_reached=False) is None
    assert pause_s(patience, Unavailable("loading"), was_reached=False) is not None


def test_a_wait_that_would_use_the_time_up_is_not_begun(clock: RestingClock) -> None:
    patience = clock.patience(10)
    assert pause_s(patience, full(10)) is None
    clock.rest(7)
    assert patience.left_s() == 3
    assert pause_s(patience, full(3)) is None
    assert pause_s(patience, full(1.9)) is not None


def test_a_hint_of_nothing_is_still_a_wait(clock: RestingClock) -> None:
    pause = pause_s(clock.patience(10), full(0))
    assert pause is not None
    assert pause >= MIN_PAUSE_S


def test_time_that_is_over_is_none(clock: RestingClock) -> None:
    patience = clock.patience(1)
    clock.rest(2)
    assert patience.left_s() == 0


def test_a_long_wait_is_divided(clock: RestingClock) -> None:
    vigil = Vigil(clock.patience(150))
    shares = []
    while share_s := vigil.share_s():
        shares.append(share_s)
        clock.rest(share_s)
        assert vigil.pause_s() == 0
    assert shares == [WAIT_SHARE_S, WAIT_SHARE_S, 30]


def test_an_endless_wait_is_divided_too(clock: RestingClock) -> None:
    vigil = Vigil(clock.patience(math.inf))
    for _ in range(3):
        assert vigil.share_s() == WAIT_SHARE_S
        clock.rest(WAIT_SHARE_S)
        assert vigil.pause_s() == 0


def test_a_server_may_be_away_for_long(clock: RestingClock) -> None:
    vigil = Vigil(clock.patience(86400))
    for _ in range(2000):
        vigil.share_s()
        pause_s = vigil.pause_s(Unavailable("away"))
        clock.rest(pause_s)
    assert MAX_PAUSE_S <= pause_s <= MAX_PAUSE_S * SPREAD


def test_a_server_that_answers_at_once_is_asked_ever_less_often(clock: RestingClock) -> None:
    vigil = Vigil(clock.patience(1000))
    pauses = []
    for _ in range(8):
        vigil.share_s()
        pauses.append(vigil.pause_s())
    assert pauses[0] < pauses[2] < pauses[4]
    assert MAX_PAUSE_S <= pauses[-1] <= MAX_PAUSE_S * SPREAD

    clock.rest(vigil.share_s())
    assert vigil.pause_s() == 0
    vigil.share_s()
    assert vigil.pause_s() <= pauses[0] * SPREAD


def test_a_server_that_is_away_is_asked_when_it_says(clock: RestingClock) -> None:
    vigil = Vigil(clock.patience(1000))
    vigil.share_s()
    assert 20 <= vigil.pause_s(Unavailable("loading", retry_after_s=20)) <= 20 * SPREAD


def test_no_rest_is_longer_than_the_time_left(clock: RestingClock) -> None:
    vigil = Vigil(clock.patience(3))
    vigil.share_s()
    assert vigil.pause_s(Unavailable("loading", retry_after_s=20)) == 3


def test_waits_of_real_clients_differ() -> None:
    random.seed(7)
    patience = Patience(100)
    assert len({pause_s(patience, full(1)) for _ in range(10)}) == 10


def test_only_what_may_be_done_twice_is_retried_by_grpc() -> None:
    (config,) = SERVICE_CONFIG["methodConfig"]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    names = {(name["service"], name.get("method")) for name in config["name"]}
    assert ("prediction.v1.PredictionService", None) in names
    assert ("google.longrunning.Operations", None) in names
    assert ("prediction.v1.AdminService", "PurgeDeadLetters") in names
    assert (
        not {
            ("prediction.v1.AdminService", "ReplayDeadLetter"),
            ("prediction.v1.AdminService", None),
        }
        & names
    )
