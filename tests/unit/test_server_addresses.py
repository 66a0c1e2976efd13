"""Where a server may listen without knowing who calls."""

import pytest
from pydantic import ValidationError

from server.addresses import is_private
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
OPEN = ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", ":50051", "server:50051", "[fe80::1]:1", ""]


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


def test_files_that_belong_together_come_together() -> None:
    for half in ({"tls_cert_file": "a"}, {"tls_key_file": "a"}, {"tls_client_ca_file": "a"}):
        with pytest.raises(ValidationError, match="SERVER_TLS_CERT_FILE"):
            ServerSettings.model_validate(half, by_name=True)
