"""Each thread of a worker keeps a connection as long as it is good."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dispatch import blocking_line
from dispatch.blocking_line import BlockingLine, says
from dispatch.errors import BrokerUnavailable
from tests.redis_server import RedisServer


@pytest.fixture
def line(redis_server: RedisServer) -> Iterator[BlockingLine]:
    line = BlockingLine(redis_server.url)
    yield line
    line.close()


def connection_of(line: BlockingLine) -> int:
    (number,) = line.call(("CLIENT", "ID"))
    return int(number)


def connections(server: RedisServer) -> set[int]:
    with server.client() as client:
        return {int(each["id"]) for each in client.client_list()}


def close(server: RedisServer, number: int) -> None:
    with server.client() as client:
        assert client.client_kill_filter(_id=str(number)) == 1


def test_a_thread_keeps_its_connection_and_shares_it_with_no_other(line: BlockingLine) -> None:
    first = connection_of(line)
    others: list[int] = []
    other = threading.Thread(target=lambda: others.append(connection_of(line)))
    other.start()
    other.join()
    assert others != [first]
    assert connection_of(line) == first


def test_one_that_redis_closed_while_nobody_used_it_is_not_missed(
    redis_server: RedisServer, line: BlockingLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking_line, "IDLE_S", -1)  # as if it had not been used for long
    first = connection_of(line)
    close(redis_server, first)
    assert connection_of(line) != first


def test_one_that_breaks_in_use_is_told_once_and_replaced(
    redis_server: RedisServer, line: BlockingLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking_line, "IDLE_S", 60)
    first = connection_of(line)
    close(redis_server, first)
    with pytest.raises(BrokerUnavailable):
        connection_of(line)
    assert connection_of(line) != first


def test_leases_have_suffered_when_redis_was_away_for_long_and_not_when_a_connection_broke(
    redis_server: RedisServer, line: BlockingLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking_line, "IDLE_S", 60)
    monkeypatch.setattr(blocking_line, "ABSENCE_S", 60)
    close(redis_server, connection_of(line))
    line._reachable_since -= 100
    with pytest.raises(BrokerUnavailable):
        connection_of(line)
    connection_of(line)
    assert line.reachable_for_s > 100
    # What a call has waited in vain is a part of it.
    monkeypatch.setattr(blocking_line, "ABSENCE_S", 0.5)
    with pytest.raises(BrokerUnavailable):
        line.call(("BLPOP", "no-such-list", "5"), timeout_s=0.6)
    connection_of(line)
    assert line.reachable_for_s < 100


def test_closing_closes_those_of_threads_that_have_ended(
    redis_server: RedisServer, line: BlockingLine
) -> None:
    ended: list[int] = []
    threads = [threading.Thread(target=lambda: ended.append(connection_of(line))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(connections(redis_server) & set(ended)) == 3
    line.close()
    assert not connections(redis_server) & set(ended)


def test_replies_of_any_size_come_whole_and_in_order(line: BlockingLine) -> None:
    large = bytes(range(256)) * 10_000  # far more than is read at once
    replies = line.call(("ECHO", large), ("ECHO", b""), ("ECHO", large[::-1]), ("NONSENSE",))
    assert replies[:3] == [large, b"", large[::-1]]
    assert says(replies[3], "unknown command")
    assert line.call(("ECHO", b"next")) == [b"next"]


def test_each_call_says_how_long_it_waits(line: BlockingLine) -> None:
    first = connection_of(line)
    assert line.call(("BLPOP", "no-such-list", "0.3"), timeout_s=5) == [None]
    assert connection_of(line) == first
    with pytest.raises(BrokerUnavailable):
        line.call(("BLPOP", "no-such-list", "5"), timeout_s=0.1)
    # What it answers later must not be taken for the answer to something else.
    assert connection_of(line) != first


def test_nonsense_in_the_place_of_a_reply_is_a_broken_connection() -> None:
    with answering(b"?!") as line, pytest.raises(BrokerUnavailable):
        line.call(("PING",))


def test_one_that_has_forgotten_who_we_are_is_replaced() -> None:
    # Such as behind a proxy that has connected to Redis anew.
    with answering(b"-NOAUTH Authentication required.", b"+PONG") as line:
        with pytest.raises(BrokerUnavailable):
            line.call(("PING",))
        assert line.call(("PING",)) == [b"PONG"]


@contextmanager
def answering(*answers: bytes) -> Iterator[BlockingLine]:
    """Yield a line to one that introduces itself as Redis, and gives each connection one answer."""

    def answer(server: socket.socket) -> None:
        for each in answers:
            connection, _ = server.accept()
            with connection:
                while request := connection.recv(4096):
                    count = request.count(b"SETINFO")
                    connection.sendall(b"+OK\r\n" * count or each + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        line = BlockingLine(f"redis://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=answer, args=[server])
        thread.start()
        yield line
        line.close()
        thread.join()
