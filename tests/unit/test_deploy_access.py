"""As whom `make up` calls what it has started."""

import sys
from pathlib import Path

import pytest

from deploy import access, report
from deploy.errors import StackError

TLS = {"SERVER_TLS_CERT_FILE": "cert.pem"}
KEYS = {"SERVER_API_KEYS_FILE": "keys.toml"}
CALLERS = {"SERVER_TLS_CLIENT_CA_FILE": "callers.pem"}


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        ({}, {}),
        ({}, {"DESPACHO_API_KEY": "for another server"}),
        ({}, {"DESPACHO_TLS": "0"}),
        (TLS, {"DESPACHO_TLS": "true"}),
        (TLS, {"DESPACHO_TLS_CA": "ca.pem"}),
        (KEYS, {"DESPACHO_API_KEY": "key"}),
        (KEYS, {"DESPACHO_API_KEY_FILE": "key.txt"}),
        (TLS | CALLERS, {"DESPACHO_TLS_CA": "ca.pem", "DESPACHO_TLS_CERT": "caller.pem"}),
    ],
)
def test_nothing_is_missing(settings: dict[str, str], environment: dict[str, str]) -> None:
    access.check(settings, environment)


@pytest.mark.parametrize(
    ("settings", "environment", "told"),
    [
        (TLS, {}, "DESPACHO_TLS_CA="),
        (TLS, {"DESPACHO_TLS": "false"}, "DESPACHO_TLS_CA="),
        (KEYS, {}, "DESPACHO_API_KEY="),
        (TLS | CALLERS, {"DESPACHO_TLS_CA": "ca.pem"}, "DESPACHO_TLS_CERT="),
        ({}, {"DESPACHO_TLS_CA": "ca.pem"}, "nothing is encrypted"),
        (TLS, {"DESPACHO_TLS": "perhaps"}, "neither true nor false"),
    ],
)
def test_what_is_missing_is_told(
    settings: dict[str, str], environment: dict[str, str], told: str
) -> None:
    with pytest.raises(StackError, match=told):
        access.check(settings, environment)


def test_settings_may_come_from_elsewhere() -> None:
    access.check({}, {"DESPACHO_TLS_CA": "ca.pem"}, are_all=False)


GATEWAY_TLS = {"GATEWAY_SERVER_TLS": "true", "GATEWAY_SERVER_CA_FILE": "/run/ca.pem"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        KEYS,
        TLS | GATEWAY_TLS,
        # A certificate that gRPC knows by itself.
        TLS | {"GATEWAY_SERVER_TLS": "1"},
        TLS | CALLERS | GATEWAY_TLS | {"GATEWAY_SERVER_CERT_FILE": "/run/gateway.pem"},
        TLS | {"GATEWAY_SERVER_ADDRESS": "of.another:50051"},
    ],
)
def test_the_gateway_reaches_the_front_end(settings: dict[str, str]) -> None:
    access.check_gateway(settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (TLS, "GATEWAY_SERVER_TLS=true"),
        (TLS | {"GATEWAY_SERVER_TLS": "false"}, "GATEWAY_SERVER_CA_FILE="),
        (TLS | {"GATEWAY_SERVER_TLS": "perhaps"}, "neither true nor false"),
        (TLS | CALLERS | GATEWAY_TLS, "set GATEWAY_SERVER_CERT_FILE="),
    ],
)
def test_what_the_gateway_lacks_is_told(settings: dict[str, str], told: str) -> None:
    with pytest.raises(StackError, match=told):
        access.check_gateway(settings)


def test_a_file_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DESPACHO_TLS_CA", str(tmp_path / "nothing.pem"))
    with pytest.raises(StackError, match=r"nothing\.pem"):
        access.client("127.0.0.1:1")


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, "-plaintext"),
        ({"DESPACHO_TLS": "1"}, ""),
        ({"DESPACHO_API_KEY": "secret"}, '-plaintext -H "authorization: Bearer $DESPACHO_API_KEY"'),
        (
            {"DESPACHO_TLS_CA": "my ca.pem", "DESPACHO_API_KEY_FILE": "key"},
            """-cacert 'my ca.pem' -H "authorization: Bearer $(cat key)\"""",
        ),
    ],
)
def test_the_command_to_try_shows_no_key(environment: dict[str, str], options: str) -> None:
    assert access.grpcurl_options(environment) == options


def test_a_program_that_is_not_there_is_not_suggested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    report.show_commands("127.0.0.1:1")
    assert "grpcurl" not in capsys.readouterr().out
    (tmp_path / "grpcurl").touch(mode=0o700)
    report.show_commands("127.0.0.1:1")
    assert f"| {tmp_path}/grpcurl -plaintext -d @ 127.0.0.1:1 " in capsys.readouterr().out


def test_a_password_of_redis_is_not_shown() -> None:
    url = "rediss://me:pass%2Fword@redis.example.org:6380/0"
    assert report.without_password(url) == "rediss://me:***@redis.example.org:6380/0"
    assert report.without_password("redis://127.0.0.1:6379/0") == "redis://127.0.0.1:6379/0"
