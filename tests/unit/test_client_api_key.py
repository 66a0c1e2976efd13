"""To whom a client sends its API key."""

from typing import Any

import grpc
import pytest

from client import AsyncClient, Client
from client.api_key import InsecureKey, stays_here
from client.channel import Access, options

KEY = "despacho_secret"

WITHOUT_KEY = Access(credentials=None, api_key="", allow_insecure_key=False)

HERE = [
    "localhost:50051",
    "127.0.0.1:50051",
    "127.1.2.3",
    "[::1]:50051",
    "::1",
    "unix:/run/despacho.sock",
    "unix-abstract:despacho",
    "ipv4:127.0.0.1:1,127.0.0.2:2",
    "ipv6:[::1]:1",
    "dns:localhost:50051",
    "dns:///127.0.0.1:50051",
]
ELSEWHERE = [
    "example.org:50051",
    "10.0.0.1:50051",
    "[fe80::1]:50051",
    "ipv4:127.0.0.1:1,10.0.0.1:2",
    "dns:///example.org:50051",
    "dns://127.0.0.1/example.org:50051",
    "xds:///localhost",
    "localhost.example.org:1",
    "0.0.0.0:50051",
]


@pytest.mark.parametrize("target", HERE)
def test_a_key_goes_unencrypted_to_this_machine(target: str) -> None:
    assert stays_here(target)
    Client(target, api_key=KEY).close()
    AsyncClient(target, api_key=KEY)


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_key_goes_nowhere_else_unless_it_is_encrypted_or_meant(target: str) -> None:
    assert not stays_here(target)
    for kind in (Client, AsyncClient):
        with pytest.raises(InsecureKey) as caught:
            kind(target, api_key=KEY)
        assert KEY not in str(caught.value)
    Client(target, api_key=KEY, credentials=grpc.ssl_channel_credentials()).close()
    Client(target, api_key=KEY, allow_insecure_key=True).close()
    Client(target).close()


@pytest.mark.parametrize("key", ["two words", "line\n", "kéy", " "])
def test_what_cannot_be_a_key_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        Client(api_key=key)
    assert key not in str(caught.value).replace(" ", "") or key == " "


def test_a_proxy_of_the_environment_does_not_see_the_key() -> None:
    access = Access(credentials=None, api_key=KEY, allow_insecure_key=True)
    assert proxied("example.org:50051", access) == 0
    assert KEY not in repr(access)
    assert proxied("example.org:50051", WITHOUT_KEY) is None


@pytest.mark.parametrize("target", HERE)
def test_no_proxy_is_asked_for_this_machine(target: str) -> None:
    assert proxied(target, WITHOUT_KEY) == 0


def proxied(target: str, access: Access) -> Any:
    return dict(options(target, max_image_bytes=1, access=access)).get("grpc.enable_http_proxy")
