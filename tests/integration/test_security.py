"""The whole system with everything switched on: TLS, API keys, users of Redis, TLS to Redis."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
import redis
import yaml

from client import (
    AccessDenied,
    AsyncClient,
    DeadlineExceeded,
    DespachoError,
    InvalidInput,
    NotFound,
    Unavailable,
)
from prediction.v1 import prediction_pb2, prediction_pb2_grpc
from tests.credentials import Authority, Identity, Keys, bearer, channel_credentials
from tests.front_end import LIMIT_S
from tests.guarded_redis import PASSWORDS, GuardedRedis, tls_in_front_of
from tests.processes import ROOT, Process
from tests.redis_rights import asked_for, documented
from tests.stack import Stack, colour_of, image_of, reason_of, request_for
from tests.worker_process import MODEL

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

WRONG: Final = "secret-but-wrong"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedRedis]:
    server = GuardedRedis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def stack(guarded: GuardedRedis, tmp_path: Path) -> AsyncIterator[Stack]:
    made = Stack(guarded, tmp_path)
    yield made
    await made.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(tmp_path / "keys.toml")
    made.add("camera-1", "predict", "operations", "admin")
    made.add("camera-2", "predict")
    return made


def start_worker(stack: Stack, url: str) -> Process:
    stack.redis.url = url
    return stack.start_worker()


def start_server(stack: Stack, url: str, **settings: object) -> Process:
    stack.redis.url = url
    return stack.start_server(**settings)


def encrypted(server: Identity) -> dict[str, object]:
    return {"tls_cert_file": server.cert_file, "tls_key_file": server.key_file}


async def until_ready(stack: Stack, client: AsyncClient) -> None:
    async def is_ready() -> bool:
        try:
            return (await client.model(MODEL)).live_workers == 1
        except (NotFound, Unavailable):
            return False

    await stack.until(is_ready, 20)


async def everything(client: AsyncClient) -> None:
    """Do once what callers and operators do."""
    image = image_of((1, 2, 3))
    assert (await client.predict(image, model=MODEL)).labels
    outcomes = [o async for o in client.predict_stream([(n, image) for n in range(3)], model=MODEL)]
    assert all(outcome.unwrap().labels for outcome in outcomes)
    operation = await client.submit(image, model=MODEL)
    assert (await client.wait(operation.name, timeout_s=LIMIT_S)).unwrap().labels
    assert [each.name async for each in client.operations()] == [operation.name]
    await client.delete(operation.name)
    kept = await client.submit(image, model=MODEL, synced=True)
    assert (await client.wait(kept.name, timeout_s=LIMIT_S)).unwrap().labels
    await client.delete(kept.name)
    assert [letter async for letter in client.admin.dead_letters(MODEL)] == []
    assert await client.admin.purge_dead_letters(MODEL, all=True) == 0


async def test_everything_works_with_everything_on(
    stack: Stack, guarded: GuardedRedis, authority: Authority, keys: Keys
) -> None:
    identity = authority.issue("server", "localhost", "127.0.0.1")
    client_identity = authority.issue("client", "camera-1.example.org")
    server = start_server(
        stack,
        guarded.url_of("front-end"),
        **encrypted(identity),
        tls_client_ca_file=authority.cert_file,
        api_keys_file=keys.path,
    )
    worker = start_worker(stack, guarded.url_of("worker"))
    credentials = channel_credentials(authority, client_identity)
    async with AsyncClient(
        stack.address, api_key=keys["camera-1"], credentials=credentials
    ) as client:
        await until_ready(stack, client)
        await everything(client)
    await until_retired(stack)
    stack.assert_nothing_is_left()
    assert worker.terminate() == 0
    async with AsyncClient(
        stack.address, api_key=keys["camera-1"], credentials=credentials
    ) as client:
        await forgotten(client)
    assert server.terminate() == 0
    for process in (server, worker):
        assert "no permissions" not in process.log
        assert_no_secrets(process.log, keys)


async def forgotten(client: AsyncClient) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await client.admin.forget_model(MODEL)
            except InvalidInput:  # a worker that has just ended counts for some seconds
                await asyncio.sleep(0.1)
            else:
                return


async def until_retired(stack: Stack) -> None:
    await stack.until(lambda: stack.entries() == 0, LIMIT_S)


def assert_no_secrets(text: str, keys: Keys) -> None:
    for secret in (*PASSWORDS.values(), keys["camera-1"], keys["camera-2"], "secret"):
        assert secret not in text
        assert secret.replace("/", "%2F") not in text


async def test_who_may_not_call_sends_no_image_to_redis(
    stack: Stack, guarded: GuardedRedis, authority: Authority, keys: Keys
) -> None:
    identity = authority.issue("server", "localhost", "127.0.0.1")
    server = start_server(
        stack, guarded.url_of("front-end"), **encrypted(identity), api_keys_file=keys.path
    )
    start_worker(stack, guarded.url_of("worker"))
    credentials = channel_credentials(authority)
    async with AsyncClient(
        stack.address, api_key=keys["camera-2"], credentials=credentials
    ) as client:
        await until_ready(stack, client)
        with guarded.client() as admin:
            admin.config_resetstat()
        image = image_of((9, 9, 9))
        for key, reasons in (
            ("", {"CREDENTIALS_MISSING"}),
            ("despacho_secret-that-is-wrong", {"CREDENTIALS_INVALID"}),
            (keys["camera-2"], {"SCOPE_MISSING"}),
        ):
            async with AsyncClient(stack.address, api_key=key, credentials=credentials) as stranger:
                found = {await refused(stranger.submit(image, model=MODEL))}
                if key != keys["camera-2"]:
                    found |= {await refused(stranger.predict(image, model=MODEL))}
                    found |= {await refused(drained(stranger, image))}
            assert found == reasons
        assert "zadd" not in guarded.received()
        assert stack.totals() == {}
        assert stack.entries() == 0
        # The same look sees an image that is let in.
        assert (await client.predict(image, model=MODEL)).labels
        assert stack.totals()["accepted"] == 1
    assert_no_secrets(server.log, keys)


async def test_no_byte_of_an_image_passes_who_may_not_connect(
    stack: Stack, guarded: GuardedRedis, authority: Authority, keys: Keys, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    camera = authority.issue("camera", "camera-1.example.org")
    start_server(
        stack,
        guarded.url_of("front-end"),
        **encrypted(authority.issue("server", "localhost", "127.0.0.1")),
        tls_client_ca_file=authority.cert_file,
        api_keys_file=keys.path,
    )
    start_worker(stack, guarded.url_of("worker"))
    trusted = channel_credentials(authority, camera)
    async with AsyncClient(stack.address, api_key=keys["camera-1"], credentials=trusted) as client:
        await until_ready(stack, client)
    image = os.urandom(1024 * 1024)
    request = prediction_pb2.PredictRequest(model=MODEL, image=image)

    async def outcome(credentials: grpc.ChannelCredentials | None, key: str) -> str:
        """Return the reason or the status that a caller gets."""
        options = [("grpc.enable_retries", 0)]
        opened = (
            grpc.aio.secure_channel(stack.address, credentials, options=options)
            if credentials
            else grpc.aio.insecure_channel(stack.address, options=options)
        )
        async with opened as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Predict(request, metadata=bearer(key) if key else (), timeout=LIMIT_S)
        return reason_of(caught.value) or caught.value.code().name

    before = guarded.received_bytes()
    good = keys["camera-1"]
    assert await outcome(trusted, "") == "CREDENTIALS_MISSING"
    assert await outcome(trusted, "despacho_secret-that-is-wrong") == "CREDENTIALS_INVALID"
    assert await outcome(channel_credentials(authority), good) == "UNAVAILABLE"
    forged = channel_credentials(authority, stranger.issue("forged", "camera-1.example.org"))
    assert await outcome(forged, good) == "UNAVAILABLE"
    assert await outcome(channel_credentials(stranger, camera), good) == "UNAVAILABLE"
    assert await outcome(None, good) == "UNAVAILABLE"
    # Heartbeats and the questions of this test are all that came meanwhile.
    assert guarded.received_bytes() - before < len(image) / 2
    assert stack.totals() == {}
    assert stack.entries() == 0
    # The same look sees an image that is let in.
    assert await outcome(trusted, good) == "IMAGE_FORMAT_UNSUPPORTED"
    assert guarded.received_bytes() - before > len(image)


async def refused(call: object) -> str:
    with pytest.raises(AccessDenied) as caught:
        await call  # type: ignore[misc] # any awaitable
    return caught.value.reason


async def drained(client: AsyncClient, image: bytes) -> None:
    async for _ in client.predict_stream([(1, image)], model=MODEL):
        pass


async def test_a_new_certificate_is_served_while_a_stream_goes_on(
    stack: Stack, guarded: GuardedRedis, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    identity = old.issue("server", "localhost", "127.0.0.1")
    start_server(stack, guarded.url_of("front-end"), **encrypted(identity))
    start_worker(stack, guarded.url_of("worker"))
    async with AsyncClient(stack.address, credentials=channel_credentials(old)) as client:
        await until_ready(stack, client)
        async with grpc.aio.secure_channel(stack.address, channel_credentials(old)) as channel:
            call: Any = prediction_pb2_grpc.PredictionServiceStub(channel).PredictStream()
            await call.write(prediction_pb2.PredictStreamRequest(request=request_for((1, 1, 1))))
            assert colour_of((await call.read()).response) == (1, 1, 1)
            identity.replace_with(new.issue("next", "localhost", "127.0.0.1"))
            async with AsyncClient(stack.address, credentials=channel_credentials(new)) as other:
                assert (await other.predict(image_of((2, 2, 2)), model=MODEL)).labels
            await call.write(prediction_pb2.PredictStreamRequest(request=request_for((3, 3, 3))))
            assert colour_of((await call.read()).response) == (3, 3, 3)
            await call.done_writing()


async def test_a_wrong_password_of_redis_is_told_and_not_shown(
    stack: Stack, guarded: GuardedRedis, keys: Keys
) -> None:
    server = start_server(stack, guarded.url_of("front-end", password=WRONG))
    worker = start_worker(stack, guarded.url_of("worker", password=WRONG))
    server.wait_for_line("invalid username-password")
    worker.wait_for_line("invalid username-password")
    image = os.urandom(1024 * 1024)
    before = guarded.received_bytes()
    async with AsyncClient(stack.address) as client:
        with pytest.raises((Unavailable, DeadlineExceeded)) as caught:
            await client.predict(image, model=MODEL, timeout_s=2)
    assert guarded.received_bytes() - before < len(image) / 2
    assert "secret" not in str(caught.value)
    assert_no_secrets(server.log + worker.log, keys)


@pytest.mark.parametrize(
    "rule", ["+xadd", "+smembers", "+xread", "+hincrby", "+evalsha", "+mget", "+xlen"]
)
async def test_without_a_right_of_the_front_end_calls_fail_and_the_log_says_why(
    stack: Stack, guarded: GuardedRedis, keys: Keys, rule: str
) -> None:
    guarded.forbid("front-end", rule)
    server = start_server(stack, guarded.url_of("front-end"))
    start_worker(stack, guarded.url_of("worker"))
    await fail_until_told(stack, server, rule)
    assert_no_secrets(server.log, keys)


async def fail_until_told(stack: Stack, process: Process, rule: str) -> None:
    """Call until a log says that the right is missing; no call succeeds."""
    async with asyncio.timeout(20), AsyncClient(stack.address) as client:
        while f"no permissions to run the '{rule[1:]}" not in process.log:
            with pytest.raises(DespachoError):
                await client.predict(image_of((1, 1, 1)), model=MODEL, timeout_s=1)


@pytest.mark.parametrize("rule", ["+xreadgroup", "+xack", "+sadd", "+xinfo|groups"])
async def test_without_a_right_of_the_worker_its_log_says_why(
    stack: Stack, guarded: GuardedRedis, keys: Keys, rule: str
) -> None:
    guarded.forbid("worker", rule)
    # Its own limit: the timer of a caller might end before the reason has come.
    start_server(stack, guarded.url_of("front-end"), max_deadline_s=1)
    worker = start_worker(stack, guarded.url_of("worker"))
    await fail_until_told(stack, worker, rule)
    async with AsyncClient(stack.address) as client:
        with pytest.raises(DespachoError) as caught:
            await client.predict(image_of((1, 1, 1)), model=MODEL, timeout_s=30)
    # One that cannot even take jobs is not waited for.
    takes_jobs = rule == "+xack"
    assert caught.value.reason == ("EXPIRED_IN_QUEUE" if takes_jobs else "MODEL_NOT_FOUND")
    assert_no_secrets(worker.log, keys)


async def test_a_worker_needs_no_keys_of_other_models(stack: Stack, guarded: GuardedRedis) -> None:
    with guarded.client() as admin:
        own = [f"~despacho:{{{MODEL}}}:*", "~despacho:models"]
        rules = [rule for rule in documented("worker") if not rule.startswith("~")]
        guarded.allow(admin, "worker", [*own, *rules])
    start_server(stack, guarded.url_of("front-end"))
    start_worker(stack, guarded.url_of("worker"))
    async with AsyncClient(stack.address) as client:
        await until_ready(stack, client)
        await everything(client)


@pytest.mark.parametrize("who", ["front-end", "worker"])
def test_the_documented_rights_are_those_that_the_code_needs(who: str) -> None:
    commands = [rule for rule in documented(who) if not rule.startswith("~")]
    assert commands == sorted(f"+{command}" for command in asked_for(who))


async def test_redis_is_reached_over_tls_that_is_checked(
    stack: Stack, guarded: GuardedRedis, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with tls_in_front_of(guarded.port, authority.issue("redis", "localhost")) as port:

        def url_of(user: str, trusted: Authority) -> str:
            url = guarded.url_of(user, scheme="rediss", port=port)
            return f"{url}?ssl_ca_certs={trusted.cert_file}"

        # Its own event loop must answer while processes start.
        await asyncio.to_thread(start_server, stack, url_of("front-end", authority))
        await asyncio.to_thread(start_worker, stack, url_of("worker", authority))
        async with AsyncClient(stack.address) as client:
            await until_ready(stack, client)
            await everything(client)

        deceived = await asyncio.to_thread(start_server, stack, url_of("front-end", stranger))
        await asyncio.to_thread(deceived.wait_for_line, "CERTIFICATE_VERIFY_FAILED")


def test_redis_takes_the_users_of_the_example_for_kubernetes(guarded: GuardedRedis) -> None:
    path = ROOT / "deploy" / "kubernetes" / "secrets.example.yaml"
    [secret] = [
        one
        for one in yaml.safe_load_all(path.read_text())
        if one["metadata"]["name"] == "despacho-redis"
    ]
    lines = [line.split() for line in secret["stringData"]["users.acl"].splitlines()]
    with guarded.client() as admin:
        for _, name, *rules in lines:
            if name != "default":
                admin.execute_command("ACL", "SETUSER", name, "reset", *rules)
    with redis.Redis(port=guarded.port, username="probe", password=WRONG) as probe:
        assert probe.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            probe.get("despacho:models")
