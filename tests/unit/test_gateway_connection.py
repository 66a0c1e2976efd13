"""Whether a caller is still there."""

import select
import socket
import time

import pytest

from gateway.connection import SocketConnection
from gateway.http_connection import PacedSocket


def connection_over(sock: socket.socket) -> SocketConnection:
    return SocketConnection(PacedSocket(sock), time.monotonic())


def test_a_caller_who_waits_is_there_and_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        began = time.monotonic()
        assert not connection_over(ours).is_gone()
        assert time.monotonic() - began < 15


def test_a_caller_who_sends_the_next_request_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.1")
        assert not connection_over(ours).is_gone()
        # It is still there to be read.
        assert ours.recv(3) == b"GET"


def test_a_caller_who_has_closed_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert connection_over(ours).is_gone()


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells")
def test_a_caller_who_has_closed_is_gone_although_not_all_of_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"the rest of a photo")
        theirs.close()
        assert connection_over(ours).is_gone()


def test_a_caller_who_closes_its_sending_half_counts_as_gone() -> None:
    # TCP says no more than that nothing will come; docs/gateway.md tells callers.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        assert connection_over(ours).is_gone()


def test_a_connection_of_ours_that_is_closed_counts_as_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    assert connection_over(ours).is_gone()
