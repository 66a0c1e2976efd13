"""Tries `tritonclient.grpc` at servers that want to know who calls; see `cells.py`."""

from functools import partial
from typing import Any

import tritonclient.grpc as triton

from tests.compat.clients.cells import MODEL, REDDISH, Target
from tests.compat.clients.triton_calls import failure_of, image_input


def encrypted(address: str, roots: str, *identity: str) -> Any:
    """Return a client that trusts `roots` and shows the certificate in two files, if any."""
    certificate, private_key = identity or (None, None)
    return triton.InferenceServerClient(
        address,
        ssl=True,
        root_certificates=roots,
        certificate_chain=certificate,
        private_key=private_key,
    )


def tls(target: Target) -> None:
    """Encrypt."""
    guarded = target.guarded
    with encrypted(guarded.keyed, guarded.roots) as client:
        assert client.is_server_live()
    with encrypted(guarded.keyed, guarded.other_roots) as client:
        assert failure_of(client.is_server_live)[0] == "StatusCode.UNAVAILABLE"


def api_key(target: Target) -> None:
    """Send a key with each call."""
    guarded = target.guarded
    with encrypted(guarded.keyed, guarded.roots) as client:
        tensor = image_input(target.image(REDDISH))
        result = client.infer(MODEL, [tensor], headers=guarded.headers())
        assert result.as_numpy("labels").tolist() == [[b"red"]]
        for headers in (None, guarded.headers("wrong")):
            status, _ = failure_of(partial(client.infer, MODEL, [tensor], headers=headers))
            assert status == "StatusCode.UNAUTHENTICATED"


def certificate(target: Target) -> None:
    """Show a certificate."""
    guarded = target.guarded
    known = (guarded.certificate, guarded.private_key)
    with encrypted(guarded.mutual, guarded.roots, *known) as client:
        result = client.infer(MODEL, [image_input(target.image(REDDISH))])
        assert result.as_numpy("labels").tolist() == [[b"red"]]
    with encrypted(guarded.mutual, guarded.roots) as client:
        assert failure_of(client.is_server_live)[0] == "StatusCode.UNAVAILABLE"


CELLS = {"tls": tls, "api-key": api_key, "certificate": certificate}
