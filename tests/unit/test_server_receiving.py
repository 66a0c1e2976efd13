"""How many bytes may be received at once."""

import pytest

from dispatch.errors import QueueFull
from server.receiving import Receiving


def test_calls_share_the_limit_and_give_back_what_they_held() -> None:
    receiving = Receiving(max_bytes=10)
    with receiving.share() as first:
        first.add(4)
        with receiving.share() as second:
            second.add(6)
            for share in (first, second):
                with pytest.raises(QueueFull) as caught:
                    share.add(1)
                assert caught.value.subject == "server/receiving"
        first.add(6)
    with receiving.share() as third:
        third.add(10)


def test_what_was_refused_is_not_held() -> None:
    receiving = Receiving(max_bytes=10)
    with receiving.share() as first, receiving.share() as second:
        first.add(5)
        with pytest.raises(QueueFull):
            second.add(6)
        second.add(5)
        assert (first.size_bytes, second.size_bytes) == (5, 5)


def test_asking_holds_nothing() -> None:
    receiving = Receiving(max_bytes=10)
    with receiving.share() as first, receiving.share() as second:
        first.add(5)
        with pytest.raises(QueueFull):
            second.check(6)
        second.check(5)
        first.add(5)


def test_one_call_alone_may_hold_more() -> None:
    receiving = Receiving(max_bytes=10)
    with receiving.share() as first:
        first.add(11)
        first.add(11)
        with receiving.share() as second, pytest.raises(QueueFull):
            second.add(1)


def test_a_call_that_fails_gives_back_what_it_held() -> None:
    receiving = Receiving(max_bytes=10)

    def fail() -> None:
        with receiving.share() as share:
            share.add(10)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with receiving.share() as first, receiving.share() as second:
        first.add(5)
        second.add(5)
