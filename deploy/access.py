"""As whom the commands of `make` call the front-end: as the environment says, like `despacho`."""

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from client import Client
from client.cli.options import FILES
from client.cli.session import api_key_from, credentials_from
from deploy.errors import StackError

API_KEY: Final = "DESPACHO_API_KEY"
TLS: Final = "DESPACHO_TLS"


def client(address: str) -> Client:
    """Return a client with the key and the certificates that the environment names.

    Raises:
        StackError: they cannot be used.
    """
    try:
        return Client(
            address,
            api_key=api_key_from(_file("api-key-file", os.environ)),
            credentials=credentials_from(
                {name: _file(name, os.environ) for name in FILES},
                is_wanted=_says_tls(os.environ),
            ),
        )
    except (OSError, ValueError) as error:
        raise StackError(f"the front-end cannot be called: {error}") from error


def check(
    settings: Mapping[str, str], environment: Mapping[str, str], *, are_all: bool = True
) -> None:
    """Check that whoever starts a front-end with these settings can also call it.

    Args:
        settings: of the front-end.
        environment: of the one who calls.
        are_all: whether it gets no settings from elsewhere.

    Raises:
        StackError: a key or a certificate is missing; says which, and how to give it.
    """
    missing = list(_missing(settings, environment))
    if are_all and _encrypts(environment) and not settings.get("SERVER_TLS_CERT_FILE"):
        missing.append(f"{TLS}... is set, but without SERVER_TLS_CERT_FILE nothing is encrypted")
    if missing:
        raise StackError(
            "started like this, the front-end could not be called to see whether it works:"
            + "".join(f"\n  {each}" for each in missing)
        )


def check_gateway(settings: Mapping[str, str]) -> None:
    """Check that a gateway in a container of its own reaches a front-end with these settings.

    What it needs are files of its container, which nobody but the user can know.

    Raises:
        StackError: it would not; says what to set.
    """
    if settings.get("GATEWAY_SERVER_ADDRESS"):
        return  # of another front-end
    missing = []
    if settings.get("SERVER_TLS_CERT_FILE") and not _is_true("GATEWAY_SERVER_TLS", settings):
        missing += ["GATEWAY_SERVER_TLS=true", "GATEWAY_SERVER_CA_FILE=FILE"]
    if settings.get("SERVER_TLS_CLIENT_CA_FILE") and not settings.get("GATEWAY_SERVER_CERT_FILE"):
        missing += ["GATEWAY_SERVER_CERT_FILE=FILE", "GATEWAY_SERVER_KEY_FILE=FILE"]
    if missing:
        raise StackError(
            "started like this, the gateway would not reach the front-end, which encrypts:"
            f"\n  set {' '.join(missing)}, with files that are mounted into its container"
            "\n  the front-end's certificate must also name the host `server`"
            '\n  docs/operations.md, "`make up` with TLS and keys", has an example'
        )


def gateway_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return how a gateway connects to the front-end that this environment can call.

    Without the key: callers of the gateway bring their own.
    """
    if not _encrypts(environment):
        return {}
    files = (("tls-ca", "CA"), ("tls-cert", "CERT"), ("tls-key", "KEY"))
    return {
        "GATEWAY_SERVER_TLS": "true",
        **{
            f"GATEWAY_SERVER_{setting}_FILE": str(path.resolve())
            for name, setting in files
            if (path := _file(name, environment)) is not None
        },
    }


def curl_options(environment: Mapping[str, str]) -> str:
    """Return what curl needs to call the gateway, for a shell; the key is not shown."""
    if path := _file("api-key-file", environment):
        return f' -H "Authorization: Bearer $(cat {shlex.quote(str(path))})"'
    return f' -H "Authorization: Bearer ${API_KEY}"' if environment.get(API_KEY) else ""


def grpcurl_options(environment: Mapping[str, str]) -> str:
    """Return what grpcurl needs, for a shell with this environment; the key is not shown."""
    words = [] if _encrypts(environment) else ["-plaintext"]
    for name, option in (("tls-ca", "-cacert"), ("tls-cert", "-cert"), ("tls-key", "-key")):
        if path := _file(name, environment):
            words += [option, shlex.quote(str(path))]
    if path := _file("api-key-file", environment):
        words.append(f'-H "authorization: Bearer $(cat {shlex.quote(str(path))})"')
    elif environment.get(API_KEY):
        words.append(f'-H "authorization: Bearer ${API_KEY}"')
    return " ".join(words)


def _missing(settings: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[str]:
    if settings.get("SERVER_TLS_CERT_FILE") and not _encrypts(environment):
        yield (
            "SERVER_TLS_CERT_FILE encrypts: say whose certificates to trust with"
            f" {_variable('tls-ca')}=FILE, or {TLS}=true for those that gRPC comes with"
        )
    if settings.get("SERVER_TLS_CLIENT_CA_FILE") and not _file("tls-cert", environment):
        yield (
            "SERVER_TLS_CLIENT_CA_FILE wants a certificate of the caller: give it with"
            f" {_variable('tls-cert')}=FILE and {_variable('tls-key')}=FILE"
        )
    has_key = environment.get(API_KEY) or _file("api-key-file", environment)
    if settings.get("SERVER_API_KEYS_FILE") and not has_key:
        yield (
            "SERVER_API_KEYS_FILE wants an API key with the scope `predict`: give it with"
            f" {API_KEY}=KEY or {_variable('api-key-file')}=FILE"
        )


def _encrypts(environment: Mapping[str, str]) -> bool:
    files = (name for name in FILES if name.startswith("tls-"))
    return _says_tls(environment) or any(_file(name, environment) for name in files)


def _says_tls(environment: Mapping[str, str]) -> bool:
    return _is_true(TLS, environment)


def _is_true(name: str, environment: Mapping[str, str]) -> bool:
    try:
        return bool(click.BOOL.convert(environment.get(name) or "false", None, None))
    except click.BadParameter as error:
        raise StackError(f"{name} is neither true nor false: {error.message}") from error


def _file(name: str, environment: Mapping[str, str]) -> Path | None:
    value = environment.get(_variable(name))
    return Path(value) if value else None


def _variable(name: str) -> str:
    return f"DESPACHO_{name.replace('-', '_').upper()}"
