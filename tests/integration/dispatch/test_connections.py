"""Each thread of a worker keeps a connection as long as it is good."""

import threading
from collections.abc import Iterator

import pytest

from dispatch import blocking_line
from dispatch.blocking_line import BlockingLine
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
