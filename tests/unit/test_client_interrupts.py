"""Putting Ctrl-C off for a moment."""

import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from client import Client
from client.interrupts import put_off
from tests.fake_front_end import LIMIT_S, FakeFrontEnd


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """Be as in a program of one's own, whatever ran in this process before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is not None:  # it was not set from Python
        signal.signal(signal.SIGINT, before)


def press() -> None:
    """Do what Python does on Ctrl-C.

    Not by a signal: what other tests have loaded into this process may act on one as well.
    """
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def test_ctrl_c_is_raised_only_at_the_end() -> None:
    is_finished = False

    def interrupted() -> None:
        nonlocal is_finished
        with put_off():
            press()
            is_finished = True

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert is_finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_inside_is_ended_in_another_thread() -> None:
    ended = threading.Event()
    enders: list[threading.Thread] = []

    def end() -> None:
        enders.append(threading.current_thread())
        ended.set()

    def interrupted() -> None:
        with put_off(end):
            press()
            assert ended.wait(LIMIT_S)
            raise ValueError("ended")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert enders != [threading.current_thread()]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_stays_the_error() -> None:
    with pytest.raises(ValueError, match="inside"), put_off():
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_is_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        with put_off():
            press()
            assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_nothing_to_put_off() -> None:
    def use() -> None:
        with put_off():
            used.set()

    used = threading.Event()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert used.is_set()


BEGINNINGS: dict[str, Callable[[Client], object]] = {
    "call": lambda client: client.health(),
    "stream": lambda client: next(client.predict_stream([("k", b"cat")])),
    "stats": lambda client: next(client.admin.watch_stats()),
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_client_can_be_closed_after_ctrl_c_just_when_a_call_begins(
    begin: Callable[[Client], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    grpc_channel = importlib.import_module("grpc._channel")
    start_thread = grpc_channel._run_channel_spin_thread

    def interrupted(state: object) -> None:
        press()
        start_thread(state)

    with FakeFrontEnd() as server:
        client = Client(server.target)
        monkeypatch.setattr(grpc_channel, "_run_channel_spin_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(client)
        closing = threading.Thread(target=client.close, daemon=True)
        closing.start()
        closing.join(LIMIT_S)
        assert not closing.is_alive()


@pytest.mark.parametrize(
    "wait",
    [
        lambda client: client.predict(b"slow"),
        lambda client: next(client.predict_stream([("k", b"slow")])),
    ],
    ids=["call", "stream"],
)
def test_a_client_can_be_closed_after_ctrl_c_just_when_it_begins_to_wait(
    wait: Callable[[Client], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = threading.Condition.__enter__

    def interrupted(condition: threading.Condition) -> bool:
        entered = enter(condition)
        # Of gRPC, in this thread: where they wait for an answer.
        if sys._getframe(1).f_code.co_name in {"_next", "result"}:
            # Raised here, it would leave the lock taken.
            press()
        return entered

    with FakeFrontEnd() as server:
        client = Client(server.target)
        monkeypatch.setattr(threading.Condition, "__enter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wait(client)
        monkeypatch.undo()
        closing = threading.Thread(target=client.close, daemon=True)
        closing.start()
        closing.join(LIMIT_S)
        assert not closing.is_alive()
