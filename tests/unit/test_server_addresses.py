"""Where a server may listen without knowing who calls."""

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from gateway.settings import GatewaySettings
from server.addresses import is_private
from server.grpc_server import options
from server.settings import ServerSettings

PRIVATE = [
    "127.0.0.1:50051",
    "127.8.9.1:1",
    "localhost:0",
    "[::1]:50051",
    "[::ffff:127.0.0.1]:1",
    "unix:/run/despacho.sock",
    "unix-abstract:despacho",
]
OPEN = ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "server:50051", "[fe80::1]:65535"]
NONE = ["", "127.0.0.1", ":50051", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]:"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_this_machine_needs_no_credentials(address: str) -> None:
    assert is_private(address)
    ServerSettings(address=address)


@pytest.mark.parametrize("address", OPEN)
def test_any_other_address_needs_a_decision(address: str) -> None:
    assert not is_private(address)
    with pytest.raises(ValidationError, match="SERVER_ALLOW_ANONYMOUS"):
        ServerSettings(address=address)
    with pytest.raises(ValidationError, match="SERVER_ALLOW_ANONYMOUS"):
        ServerSettings(address=address, tls_cert_file="a", tls_key_file="b")
    ServerSettings(address=address, allow_anonymous=True)
    ServerSettings(address=address, api_keys_file="keys.toml")
    ServerSettings(address=address, tls_cert_file="a", tls_key_file="b", tls_client_ca_file="c")


@pytest.mark.parametrize("address", NONE)
def test_what_is_no_address_is_refused(address: str) -> None:
    settings: tuple[type[BaseSettings], ...] = (ServerSettings, GatewaySettings)
    for each in settings:
        with pytest.raises(ValidationError, match="must be host:port"):
            each.model_validate({"address": address, "allow_anonymous": True})
    if address:
        with pytest.raises(ValidationError, match="must be host:port"):
            ServerSettings(health_address=address)


def test_several_processes_have_no_socket_in_common() -> None:
    for address in ("unix:/run/despacho.sock", "unix-abstract:despacho"):
        with pytest.raises(ValidationError, match="SERVER_PROCESSES"):
            ServerSettings(address=address, processes=2)
        with pytest.raises(ValidationError, match="must be host:port"):
            ServerSettings(health_address=address)


@pytest.mark.parametrize(
    "name", ["max_connection_age_s", "max_connection_idle_s", "max_deadline_s", "drain_s"]
)
def test_a_time_may_be_long_but_not_endless(name: str) -> None:
    far = ServerSettings.model_validate({name: 31_536_000}, by_name=True)
    # What gRPC cannot take would end the start with a traceback.
    assert all(value < 2**31 for _, value in options(far) if isinstance(value, int))
    for endless in ("inf", "nan"):
        with pytest.raises(ValidationError):
            ServerSettings.model_validate({name: endless}, by_name=True)


def test_files_that_belong_together_come_together() -> None:
    for half in ({"tls_cert_file": "a"}, {"tls_key_file": "a"}, {"tls_client_ca_file": "a"}):
        with pytest.raises(ValidationError, match="SERVER_TLS_CERT_FILE"):
            ServerSettings.model_validate(half, by_name=True)
