"""The client and the command line, at servers that want to know who calls."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from client import AccessDenied, AsyncClient, Client, Overloaded
from deploy import prediction
from deploy.errors import StackError
from tests.credentials import Authority, Identity, Keys, channel_credentials
from tests.front_end import LIMIT_S, front_end


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.toml")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"photo")
    return path


async def test_both_clients_send_their_key_with_every_kind_of_call(keys: Keys, image: Path) -> None:
    key = keys.add("camera-1", "predict", "operations", "admin")
    async with front_end(api_keys_file=str(keys.path)) as end:

        def use() -> None:
            with Client(end.address, api_key=key) as client:
                assert client.predict(image).labels
                assert [o.unwrap().labels for o in client.predict_stream([(1, image)])]
                assert client.submit(image).name
                assert len(list(client.operations())) == 1
                assert client.models()
                assert list(client.admin.dead_letters()) == []

        await asyncio.to_thread(use)
        async with AsyncClient(end.address, api_key=key) as client:
            assert (await client.predict(image)).labels
            assert [o.unwrap().labels async for o in client.predict_stream([(1, image)])]
            assert (await client.submit(image)).name
            assert len([each async for each in client.operations()]) == 2
            assert await client.models()
        assert {each.new.key.caller for each in end.operations.submitted} == {"camera-1"}


async def test_a_client_is_told_what_it_lacks(keys: Keys, image: Path) -> None:
    key = keys.add("camera-1", "predict", requests_per_s=0.01)
    async with front_end(api_keys_file=str(keys.path)) as end:
        for sent, reason in (("", "CREDENTIALS_MISSING"), ("wrong", "CREDENTIALS_INVALID")):
            async with AsyncClient(end.address, api_key=sent) as client:
                with pytest.raises(AccessDenied) as caught:
                    await client.predict(image)
                assert caught.value.reason == reason
        async with AsyncClient(end.address, api_key=key) as client:
            with pytest.raises(AccessDenied) as caught:
                await client.submit(image)
            assert caught.value.reason == "SCOPE_MISSING"
            await client.predict(image)
            with pytest.raises(Overloaded) as limited:
                await client.predict(image, timeout_s=1)
            assert limited.value.reason == "RATE_LIMITED"
            assert (limited.value.retry_after_s or 0) > 90


async def test_a_client_comes_back_when_it_may(keys: Keys, image: Path) -> None:
    key = keys.add("camera-1", "predict", requests_per_s=5)
    async with (
        front_end(api_keys_file=str(keys.path)) as end,
        AsyncClient(end.address, api_key=key) as client,
    ):
        results = await asyncio.gather(*(client.predict(image, timeout_s=20) for _ in range(8)))
        assert len(results) == 8


async def test_a_key_goes_over_tls(tmp_path: Path, keys: Keys, image: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost", "127.0.0.1")
    key = keys.add("camera-1", "predict")
    async with (
        front_end(
            tls_cert_file=str(server.cert_file),
            tls_key_file=str(server.key_file),
            api_keys_file=str(keys.path),
        ) as end,
        AsyncClient(end.address, api_key=key, credentials=channel_credentials(authority)) as client,
    ):
        assert (await client.predict(image)).labels


async def despacho(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line while the front-end of this loop answers."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "client.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=4 * LIMIT_S,
        check=False,
    )


async def test_the_command_line_takes_the_key_from_a_file_or_the_environment(
    tmp_path: Path, keys: Keys, image: Path
) -> None:
    key = keys.add("camera-1", "predict")
    file = tmp_path / "key"
    file.write_text(f"{key}\n")
    async with front_end(api_keys_file=str(keys.path)) as end:
        predict = ("predict", "--server", end.address, str(image))
        assert (await despacho(*predict, "--api-key-file", str(file))).returncode == 0
        assert (await despacho(*predict, DESPACHO_API_KEY=key)).returncode == 0
        refused = await despacho(*predict)
        assert refused.returncode == 1
        assert "--api-key-file" in refused.stderr
        submitted = await despacho("submit", *predict[1:], DESPACHO_API_KEY=key)
        assert submitted.returncode == 1
        assert "scope 'operations'" in submitted.stderr
        assert key not in refused.stderr + submitted.stderr


async def test_the_command_line_keeps_a_key_from_strangers(image: Path) -> None:
    done = await despacho(
        *("predict", "--server", "192.0.2.1:50051", str(image)), DESPACHO_API_KEY="secret"
    )
    assert done.returncode == 2
    assert "--tls-ca" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("is_known", [True, False])
async def test_the_command_line_shows_a_certificate(
    tmp_path: Path, image: Path, *, is_known: bool
) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "localhost", "127.0.0.1")
    camera = authority.issue("camera", "camera-1.example.org")
    async with front_end(
        tls_cert_file=str(server.cert_file),
        tls_key_file=str(server.key_file),
        tls_client_ca_file=str(authority.cert_file),
    ) as end:
        trusted = authority if is_known else Authority(tmp_path, "other")
        done = await despacho(
            *("predict", "--server", end.address, str(image), "--timeout", "5"),
            *options(trusted, camera),
        )
    assert done.returncode == (0 if is_known else 1)
    assert is_known or "no encrypted connection" in done.stderr


def options(authority: Authority, identity: Identity) -> list[str]:
    return [
        *("--tls-ca", str(authority.cert_file)),
        *("--tls-cert", str(identity.cert_file), "--tls-key", str(identity.key_file)),
    ]


def test_a_certificate_needs_its_key(tmp_path: Path, image: Path) -> None:
    identity = Authority(tmp_path).issue("camera", "camera-1.example.org")
    done = asyncio.run(despacho("predict", str(image), "--tls-cert", str(identity.cert_file)))
    assert done.returncode == 2
    assert "belong together" in done.stderr


def test_a_channel_of_ones_own_gets_the_key_too() -> None:
    channel = grpc.insecure_channel("192.0.2.1:1")
    Client(over=channel, api_key="key").close()


async def test_make_up_does_not_wait_for_what_waiting_does_not_mend(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    server = authority.issue("server", "127.0.0.1")
    key = keys.add("me", "operations")
    async with front_end(
        tls_cert_file=str(server.cert_file),
        tls_key_file=str(server.key_file),
        api_keys_file=str(keys.path),
    ) as end:

        async def failure() -> str:
            with pytest.raises(StackError) as caught:
                await asyncio.to_thread(
                    prediction.wait_for_prediction, end.address, lambda: None, limit_s=LIMIT_S
                )
            return str(caught.value)

        monkeypatch.setenv("DESPACHO_API_KEY", key)
        monkeypatch.setenv("DESPACHO_TLS_CA", str(stranger.cert_file))
        assert "no encrypted connection" in await failure()
        monkeypatch.setenv("DESPACHO_TLS_CA", str(authority.cert_file))
        assert "lacks the scope 'predict'" in await failure()
        monkeypatch.setenv("DESPACHO_API_KEY", "wrong")
        with pytest.raises(StackError, match="not one of this server"):
            await asyncio.to_thread(prediction.live_workers, end.address)
        assert end.relay.submitted == []
