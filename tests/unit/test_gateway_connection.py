"""Whether a caller is still there."""

import socket
import time

from gateway.connection import SocketConnection
from gateway.http_connection import PacedSocket


def test_a_caller_who_waits_is_there_and_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        began = time.monotonic()
        assert not SocketConnection(PacedSocket(ours)).is_gone()
        assert time.monotonic() - began < 15


def test_a_caller_who_sends_the_next_request_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.1")
        assert not SocketConnection(PacedSocket(ours)).is_gone()
        # It is still there to be read.
        assert ours.recv(3) == b"GET"


def test_a_caller_who_has_closed_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert SocketConnection(PacedSocket(ours)).is_gone()


def test_a_caller_who_closes_its_sending_half_counts_as_gone() -> None:
    # TCP says no more than that nothing will come; docs/gateway.md tells callers.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        assert SocketConnection(PacedSocket(ours)).is_gone()


def test_a_connection_of_ours_that_is_closed_counts_as_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    assert SocketConnection(PacedSocket(ours)).is_gone()
