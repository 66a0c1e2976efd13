"""Which settings a gateway starts with."""

import math

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings


def test_it_listens_on_this_machine_unless_told_otherwise() -> None:
    assert GatewaySettings().host_and_port == ("127.0.0.1", 8080)


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:80", "example.org:80"])
def test_an_address_that_others_reach_needs_a_decision(address: str) -> None:
    with pytest.raises(ValidationError, match="anybody could call"):
        GatewaySettings(address=address)
    assert GatewaySettings(address=address, allow_anonymous=True).require_key is False
    assert GatewaySettings(address=address, require_key=True).allow_anonymous is False


@pytest.mark.parametrize(
    "address", ["localhost:0", "127.0.0.2:80", "[::1]:80", "[::ffff:127.0.0.1]:80"]
)
def test_an_address_of_this_machine_needs_none(address: str) -> None:
    assert GatewaySettings(address=address)


@pytest.mark.parametrize(
    "settings",
    [
        {"server_ca_file": "ca.pem"},
        {"server_tls": True, "server_cert_file": "mine.pem"},
        {"threads": 16, "max_stats_listeners": 16},
        {"client_timeout_s": math.inf},
        {"max_image_bytes": 2000, "max_held_bytes": 1999},
        {"api_key": "two words"},
        {"address": "8080"},
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate(settings)


def test_a_key_is_not_shown() -> None:
    assert "hunter2" not in repr(GatewaySettings(api_key="hunter2"))


def test_origins_are_a_list_in_words() -> None:
    settings = GatewaySettings(cors_origins="https://a.example  https://b.example/")
    assert settings.allowed_origins == {"https://a.example", "https://b.example"}
    assert GatewaySettings().allowed_origins == frozenset()


def test_what_a_gateway_may_be_called_depends_on_who_reaches_it() -> None:
    assert GatewaySettings().allowed_names == frozenset()
    assert GatewaySettings(require_key=True).allowed_names is None
    everywhere = GatewaySettings(address="0.0.0.0:80", allow_anonymous=True)
    assert everywhere.allowed_names is None
    named = everywhere.model_copy(update={"allowed_hosts": "A.example  b.example"})
    assert named.allowed_names == frozenset({"a.example", "b.example"})
    assert GatewaySettings(allowed_hosts="*").allowed_names is None
