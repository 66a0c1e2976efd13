"""A line to Redis: what it says when things break, and where it can connect to."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import uvloop
from redis.exceptions import ResponseError

from dispatch.errors import BrokerUnavailable, OutcomeUnknown
from dispatch.line import Line
from tests.redis_server import RedisServer

PING = ("PING",)
LONG_S = 30.0
"""Longer than any test: what ends before does not end by a time-out."""

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def line_to(url: str, *, reply_timeout_s: float = LONG_S) -> AsyncIterator[Line]:
    line = Line(url, reply_timeout_s=reply_timeout_s)
    yield line
    await line.close()


@asynccontextmanager
async def server_that(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server that is not Redis, on the port that is yielded."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except ConnectionError:
            pass  # the line broke it, as it should
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def always(answer: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(answer)

    return behave


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_images_arrive_whole_though_the_broker_reads_late(
    own_redis: RedisServer, run: Callable[[Awaitable[None]], None]
) -> None:
    # More than sockets hold, in pieces of all kinds: some are written in several steps.
    values = {f"key-{number}": os.urandom(100_000 + number) for number in range(200)}

    async def send_and_look() -> None:
        async with line_to(own_redis.url) as line:
            await line.call(PING)
            own_redis.pause()
            sent = [
                asyncio.ensure_future(line.call(("SET", key, value), ("STRLEN", key)))
                for key, value in values.items()
            ]
            await asyncio.sleep(0)  # all have written what the socket takes
            own_redis.resume()
            assert await asyncio.gather(*sent) == [[b"OK", len(each)] for each in values.values()]
            assert await line.call(*(("GET", key) for key in values)) == [*values.values()]

    run(send_and_look())


async def test_calls_do_not_wait_for_each_other_and_get_their_own_replies(
    redis_server: RedisServer,
) -> None:
    async with line_to(redis_server.url) as line:
        calls = [line.call(("ECHO", str(i)), ("ECHO", b"\x00\xff")) for i in range(100)]
        replies = await asyncio.gather(*calls)
    assert replies == [[str(i).encode(), b"\x00\xff"] for i in range(100)]


async def test_an_error_takes_the_place_of_the_reply(redis_server: RedisServer) -> None:
    async with line_to(redis_server.url) as line:
        first, error, last = await line.call(PING, ("NO", "SUCH"), PING)
    assert first == last == b"PONG"
    assert isinstance(error, ResponseError)


async def test_large_arguments_and_replies_are_whole(redis_server: RedisServer) -> None:
    image = bytes(range(256)) * 65536
    async with line_to(redis_server.url) as line:
        assert await line.call(("ECHO", image)) == [image]


async def test_a_user_a_password_and_a_database_are_those_of_the_url(
    redis_server: RedisServer,
) -> None:
    with redis_server.client() as client:
        client.acl_setuser("ana", enabled=True, passwords=["+p@ss"], commands=["+@all"], keys="*")
        try:
            place = f"127.0.0.1:{redis_server.port}/3"
            async with line_to(f"redis://ana:p%40ss@{place}") as line:
                (user,) = await line.call(("ACL", "WHOAMI"))
                (info,) = await line.call(("CLIENT", "INFO"))
            assert user == b"ana"
            assert b" db=3 " in info
            async with line_to(f"redis://ana:wrong@{place}") as line:
                with pytest.raises(BrokerUnavailable):
                    await line.call(PING)
        finally:
            client.acl_deluser("ana")


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await always(b"+PONG\r\n")(reader, writer)
        writer.close()

    path = tmp_path / "redis.sock"
    server = await asyncio.start_unix_server(serve, path)
    async with server, line_to(f"unix://{path}") as line:
        assert await line.call(PING) == [b"PONG"]


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate, in place of the one before; return its file, and what serves it."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *name, *files], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    return certificate, tls


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl to make a certificate"
)


@needs_openssl
async def test_tls_is_used_and_checked(tmp_path: Path) -> None:
    certificate, tls = await asyncio.to_thread(self_signed, tmp_path)
    async with server_that(always(b"+PONG\r\n"), tls) as port:
        url = f"rediss://localhost:{port}"
        async with line_to(f"{url}?ssl_ca_certs={certificate}") as line:
            assert await line.call(PING) == [b"PONG"]
        async with line_to(url) as line:
            with pytest.raises(BrokerUnavailable):
                await line.call(PING)


@needs_openssl
async def test_certificates_may_be_replaced_in_their_files(tmp_path: Path) -> None:
    certificate, tls = await asyncio.to_thread(self_signed, tmp_path)
    async with (
        server_that(always(b"+PONG\r\n"), tls) as port,
        line_to(f"rediss://localhost:{port}?ssl_ca_certs={certificate}") as line,
    ):
        assert await line.call(PING) == [b"PONG"]
        await asyncio.to_thread(self_signed, tmp_path)
        tls.load_cert_chain(certificate, tmp_path / "key.pem")  # of the next connection
        assert line._connection is not None
        await line._connection.close()
        assert await line.call(PING) == [b"PONG"]


@needs_openssl
async def test_certificates_are_not_read_for_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, _ = await asyncio.to_thread(self_signed, tmp_path)
    async with server_that(always(b"")) as port:
        pass  # it was there
    make = Mock(wraps=ssl.create_default_context)
    monkeypatch.setattr(ssl, "create_default_context", make)
    async with line_to(f"rediss://localhost:{port}?ssl_ca_certs={certificate}") as line:
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await line.call(PING)
    assert make.call_count == 1


async def test_nobody_there_means_nothing_was_done() -> None:
    async with server_that(always(b"")) as port:
        pass  # it was there
    async with line_to(f"redis://127.0.0.1:{port}") as line:
        with pytest.raises(BrokerUnavailable):
            await line.call(PING)


async def test_a_broker_that_is_starting_has_done_nothing() -> None:
    async with (
        server_that(always(b"-LOADING Redis is loading the dataset in memory\r\n")) as port,
        line_to(f"redis://127.0.0.1:{port}") as line,
    ):
        with pytest.raises(BrokerUnavailable):
            await line.call(PING)


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n-READONLY You can't write against a read only replica.\r\n",
        b"-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n",
        b"+OK\r\n-LOADING it began to load between two commands\r\n",
        b"this is not RESP\r\n",
    ],
)
async def test_what_was_sent_may_have_happened(answer: bytes) -> None:
    async with (
        server_that(always(answer)) as port,
        line_to(f"redis://127.0.0.1:{port}") as line,
    ):
        with pytest.raises(OutcomeUnknown):
            await line.call(PING, PING)


async def test_after_a_reply_that_nobody_asked_for_no_other_is_believed() -> None:
    answers = iter([b"+PONG\r\n+of whom?\r\n", b"+PONG\r\n"])

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = next(answers)
        while await reader.read(65536):
            writer.write(answer)

    async with server_that(behave) as port, line_to(f"redis://127.0.0.1:{port}") as line:
        for _ in range(3):
            assert await line.call(PING) == [b"PONG"]
    assert list(answers) == []


async def test_a_broken_connection_fails_all_calls_on_it_and_the_next_one_opens_another() -> None:
    connections = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.readuntil(b"LAST\r\n")
        else:
            await always(b"+PONG\r\n")(reader, writer)

    async with server_that(behave) as port, line_to(f"redis://127.0.0.1:{port}") as line:
        calls = [line.call(PING), line.call(PING), line.call(("LAST",))]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [OutcomeUnknown] * 3
        assert await line.call(PING) == [b"PONG"]
    assert connections == 2


async def test_a_silent_broker_is_a_broken_one() -> None:
    async with (
        server_that(always(b"")) as port,
        line_to(f"redis://127.0.0.1:{port}", reply_timeout_s=0.05) as line,
    ):
        errors = await asyncio.gather(line.call(PING), line.call(PING), return_exceptions=True)
        assert [type(error) for error in errors] == [OutcomeUnknown] * 2


async def test_a_call_has_no_more_time_than_its_own_after_one_that_had_more() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"+PONG\r\n")
        await always(b"")(reader, writer)

    async with (
        server_that(behave) as port,
        line_to(f"redis://127.0.0.1:{port}", reply_timeout_s=0.05) as line,
        asyncio.timeout(LONG_S / 3),
    ):
        assert await line.call(PING, timeout_s=LONG_S) == [b"PONG"]
        with pytest.raises(OutcomeUnknown):
            await line.call(PING)


async def test_a_cancelled_call_breaks_the_connection() -> None:
    closed = asyncio.Event()
    asked = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        while await reader.read(65536):
            asked.set()
        closed.set()

    async with (
        server_that(behave) as port,
        line_to(f"redis://127.0.0.1:{port}") as line,
        asyncio.timeout(10),
    ):
        call = asyncio.create_task(line.call(PING))
        await asked.wait()
        call.cancel()
        await closed.wait()
