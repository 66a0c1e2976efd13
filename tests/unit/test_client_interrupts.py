"""Putting Ctrl-C off for a moment."""

import importlib
import signal
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
