"""At which addresses a gateway listens, where its setting is a name that has several."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from deploy.address import free_port
from gateway import every_address
from gateway.every_address import Listeners
from gateway.http_server import CannotListen
from tests.fake_front_end import FakeFrontEnd
from tests.gateway import Web, gateway

# It is there without more ado, and needs no IPv6.
SECOND = "127.0.0.2"
NOT_OURS = "192.0.2.1"
UNREAD_S = 7.5

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=f"only Linux has {SECOND}")


@pytest.fixture(scope="module")
def server_address() -> Iterator[str]:
    with FakeFrontEnd() as server:
        yield server.target


@contextmanager
def listening(server_address: str, *addresses: str, port: int = 0) -> Iterator[Web]:
    """Run a gateway at a name that stands for these addresses."""

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        assert host == "localhost"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.getaddrinfo", getaddrinfo)
        with gateway(server_address, address=f"localhost:{port}") as web:
            patch.undo()
            yield web


def port_of(web: Web) -> int:
    return int(web.address.removeprefix("localhost:"))


def status_at(address: str, port: int) -> int:
    web = Web(f"{address}:{port}")
    try:
        return web.call("GET", "/healthz").status
    finally:
        web.close()


def test_all_addresses_of_a_name_answer(server_address: str) -> None:
    # A file of hosts may name one twice.
    with listening(server_address, "127.0.0.1", SECOND, "127.0.0.1") as web:
        answers = [status_at(each, port_of(web)) for each in ("127.0.0.1", SECOND, "127.0.0.1")]
    assert answers == [200, 200, 200]


def test_a_name_is_taken_if_one_of_its_addresses_is(server_address: str) -> None:
    port = free_port()
    with socket.create_server((SECOND, port)):
        begin = listening(server_address, "127.0.0.1", SECOND, port=port)
        with pytest.raises(CannotListen, match=f"in use.*{SECOND}"):
            begin.__enter__()
    with listening(server_address, "127.0.0.1", SECOND, port=port) as web:
        assert status_at("127.0.0.1", port_of(web)) == 200


def test_an_address_that_the_machine_does_not_have_is_passed_over(server_address: str) -> None:
    with listening(server_address, NOT_OURS, "127.0.0.1") as web:
        assert status_at("127.0.0.1", port_of(web)) == 200
    with pytest.raises(CannotListen, match=NOT_OURS):
        listening(server_address, NOT_OURS).__enter__()


def test_many_callers_of_one_address_do_not_keep_those_of_another_waiting() -> None:
    with ExitStack() as stack:
        listeners = stack.enter_context(closing(Listeners(UNREAD_S)))
        for address in ("127.0.0.1", SECOND):
            listener = socket.create_server((address, 0))
            listeners.add(listener)
            for _ in range(2):
                stack.enter_context(socket.create_connection(listener.getsockname()))
        taken = [stack.enter_context(listeners.accept()[0]) for _ in range(4)]
        assert [each.getsockname()[0] for each in taken] == ["127.0.0.1", SECOND] * 2


def test_who_is_gone_without_a_word_is_noticed() -> None:
    with ExitStack() as stack:
        listeners = stack.enter_context(closing(every_address.listening("127.0.0.1", 0, UNREAD_S)))
        stack.enter_context(socket.create_connection(listeners.getsockname()))
        connection = stack.enter_context(listeners.accept()[0])
        limit_ms = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert limit_ms == UNREAD_S * 1000
