"""How often the front-end is asked whether a key is one."""

from typing import Any, cast

import pytest

from client.messages import Messages, Terms
from gateway import key_check
from gateway.caller import Caller
from gateway.connection import UnknownConnection
from gateway.key_check import KNOWN_S, KeyCheck


class Answered:
    """A call that has been answered."""

    def wait(self, limit_s: float) -> bool:
        del limit_s
        return True

    def result(self) -> None:
        return None


class CountingFrontEnd:
    """Knows every key."""

    def __init__(self) -> None:
        self.asked: list[str | bytes] = []

    def list_models(self, terms: Terms) -> Any:
        self.asked.append(dict(terms.metadata)["x-api-key"])
        return Answered()


class Desk:
    """A check with its front-end, and a clock that a test sets."""

    def __init__(self, *, is_needed: bool = True) -> None:
        self.now_s = 1000.0
        self.front_end = CountingFrontEnd()
        upstream = cast("Messages", self.front_end)
        self._check = KeyCheck(upstream, is_needed=is_needed, now=lambda: self.now_s)

    def meet(self, key: str) -> None:
        caller = Caller("r", 0.0, (("x-api-key", key), ("x-request-id", f"of {self.now_s}")))
        self._check.check(caller, UnknownConnection())


def test_a_key_is_asked_about_again_after_a_while() -> None:
    desk = Desk()
    for now_s in (1000.0, 1000.0 + KNOWN_S - 1, 1000.0 + KNOWN_S):
        desk.now_s = now_s
        desk.meet("a")
    assert desk.front_end.asked == ["a", "a"]


def test_so_many_keys_are_kept_in_mind_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_check, "MAX_KNOWN", 2)
    desk = Desk()
    for key in ("a", "b", "c", "b", "c", "a"):
        desk.meet(key)
    assert desk.front_end.asked == ["a", "b", "c", "a"]


def test_where_no_key_is_needed_nobody_is_asked() -> None:
    desk = Desk(is_needed=False)
    desk.meet("a")
    assert not desk.front_end.asked
