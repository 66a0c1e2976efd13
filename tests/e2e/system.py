"""The whole system with the bundled model: as it comes, or with all there is against strangers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc

from client.keyed_channel import KeyedChannel
from prediction.v1 import prediction_pb2 as pb
from prediction.v1 import prediction_pb2_grpc
from tests.credentials import Authority, Identity, Keys, bearer, channel_credentials
from tests.guarded_redis import GuardedRedis, tls_thread
from tests.processes import Process
from tests.redis_server import RedisServer

MODEL = "efficientnet-lite0"
WORKERS = 2


@dataclass(frozen=True)
class Caller:
    """What somebody needs who may call; nothing, if everybody may."""

    authority: Authority | None = None
    identity: Identity | None = None
    api_key: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self.api_key) if self.api_key else ()

    @property
    def environment(self) -> dict[str, str]:
        """For the command line."""
        if self.authority is None or self.identity is None:
            return {}
        return {
            "DESPACHO_API_KEY": self.api_key,
            "DESPACHO_TLS_CA": str(self.authority.cert_file),
            "DESPACHO_TLS_CERT": str(self.identity.cert_file),
            "DESPACHO_TLS_KEY": str(self.identity.key_file),
        }

    @property
    def grpcurl_options(self) -> list[str]:
        if self.authority is None or self.identity is None:
            return ["-plaintext"]
        return [
            *("-cacert", str(self.authority.cert_file)),
            *("-cert", str(self.identity.cert_file), "-key", str(self.identity.key_file)),
            *("-H", f"authorization: Bearer {self.api_key}"),
        ]

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        return channel_credentials(self.authority, self.identity) if self.authority else None


@dataclass(frozen=True)
class System:
    """What runs, and who may use it."""

    address: str
    redis: RedisServer
    caller: Caller

    def channel(self) -> grpc.aio.Channel:
        """Return a new channel, each call of which has what is needed."""
        credentials = self.caller.credentials
        if credentials is None:
            return grpc.aio.insecure_channel(self.address)
        return grpc.aio.secure_channel(self.address, credentials)

    def stub(self, channel: grpc.aio.Channel) -> "prediction_pb2_grpc.PredictionServiceAsyncStub":
        """Return the service over such a channel."""
        keyed = cast("grpc.aio.Channel", KeyedChannel(channel, self.caller.metadata))
        return prediction_pb2_grpc.PredictionServiceStub(keyed)


@dataclass
class _Plan:
    """How to start it."""

    redis: RedisServer
    server: dict[str, str]
    worker: dict[str, str]
    caller: Caller = field(default_factory=Caller)


@contextmanager
def plain(folder: Path) -> Iterator[_Plan]:
    """As it comes: for processes of this machine."""
    redis = RedisServer(folder)
    redis.start()
    try:
        yield _Plan(redis, {"REDIS_URL": redis.url}, {"REDIS_URL": redis.url})
    finally:
        redis.stop()


@contextmanager
def secured(folder: Path) -> Iterator[_Plan]:
    """TLS with certificates of both sides, an API key, users of Redis, and TLS to Redis.

    The embedded Redis has no TLS of its own; something in front of it has.
    """
    authority = Authority(folder)
    server = authority.issue("server", "127.0.0.1", "localhost")
    keys = Keys(folder / "keys.toml")
    caller = Caller(
        authority, authority.issue("caller", "caller.example.org"), keys.add("me", "predict")
    )
    redis = GuardedRedis(folder)
    redis.start()
    try:
        with tls_thread(redis.port, authority.issue("redis", "localhost")) as port:

            def url_of(user: str) -> str:
                url = redis.url_of(user, scheme="rediss", port=port)
                return f"{url}?ssl_ca_certs={authority.cert_file}"

            settings = {
                "REDIS_URL": url_of("front-end"),
                "SERVER_TLS_CERT_FILE": str(server.cert_file),
                "SERVER_TLS_KEY_FILE": str(server.key_file),
                "SERVER_TLS_CLIENT_CA_FILE": str(authority.cert_file),
                "SERVER_API_KEYS_FILE": str(keys.path),
            }
            yield _Plan(redis, settings, {"REDIS_URL": url_of("worker")}, caller)
    finally:
        redis.stop()


WAYS: dict[str, Callable[[Path], AbstractContextManager[_Plan]]] = {
    "plain": plain,
    "secured": secured,
}


@contextmanager
def running(way: str, folder: Path, cache: Path) -> Iterator[System]:
    """Run a front-end with workers of the bundled model.

    Args:
        way: one of `WAYS`.
        folder: empty; for everything that is made.
        cache: where prepared models are kept.
    """
    with ExitStack() as stack:
        plan = stack.enter_context(WAYS[way](folder))
        settings = {"SERVER_ADDRESS": "127.0.0.1:0", **plan.server}
        server = Process(["-m", "server"], settings)
        stack.callback(server.clean_up)
        address = server.wait_for_line(r'"address": "([\w.:]+)"').group(1)
        # Two workers are enough for a small machine, without a process for each core in each.
        environment = {
            **plan.worker,
            "WORKER_CACHE_DIR": str(cache),
            "WORKER_PROCESSES": "1",
        }
        ready = [folder / f"ready-{number}" for number in range(WORKERS)]
        workers = [
            Process(["-m", "worker"], {**environment, "WORKER_READY_FILE": str(file)})
            for file in ready
        ]
        for worker in workers:
            stack.callback(worker.clean_up)
        for worker in workers:
            worker.wait_for_line("worker ready", timeout_s=120)
        _wait_for_workers(address, plan.caller)
        yield System(address, plan.redis, plan.caller)
        assert [file.exists() for file in ready] == [True, True]
        assert [process.terminate() for process in (*workers, server)] == [0, 0, 0]
        assert [file.exists() for file in ready] == [False, False]
        assert "no permissions" not in server.log + workers[0].log + workers[1].log


def _wait_for_workers(address: str, caller: Caller) -> None:
    """Wait until the front-end sees all workers, as it does with its next look."""
    credentials = caller.credentials
    with (
        grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    ) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = pb.GetModelRequest(name=MODEL)
        while True:
            found = stub.GetModel(request, metadata=caller.metadata, timeout=20)
            if found.model.live_workers >= WORKERS:
                return
