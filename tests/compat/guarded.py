"""Servers that want to know who calls, beside the one that does not."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from client import AsyncClient, Health
from client.errors import DespachoError
from tests.compat.clients.cells import GUARDED, MODEL, Guarded
from tests.credentials import Authority, Keys, channel_credentials
from tests.stack import Stack

READY_S = 20.0


async def start_guarded(stack: Stack, folder: Path) -> None:
    """Start them, wait until they serve the model, and write down what their callers need."""
    before = stack.address
    authority, other = Authority(folder), Authority(folder, "other")
    server = authority.issue("server", "127.0.0.1")
    caller = authority.issue("caller", "caller.example.org")
    keys = Keys(folder / "keys.toml")
    api_key = keys.add("caller", "predict")
    encrypted = {"tls_cert_file": server.cert_file, "tls_key_file": server.key_file}
    stack.start_server(**encrypted, api_keys_file=keys.path)
    keyed = stack.address
    stack.start_server(**encrypted, tls_client_ca_file=authority.cert_file)
    mutual = stack.address
    stack.address = before
    for address in (keyed, mutual):
        credentials = channel_credentials(authority, caller)
        async with AsyncClient(address, credentials=credentials) as client:
            await stack.until(partial(_serves, client), READY_S)
    guarded = Guarded(
        keyed=keyed,
        mutual=mutual,
        roots=str(authority.cert_file),
        other_roots=str(other.cert_file),
        certificate=str(caller.cert_file),
        private_key=str(caller.key_file),
        api_key=api_key,
    )
    (folder / GUARDED).write_text(json.dumps(asdict(guarded)))


async def _serves(client: AsyncClient) -> bool:
    try:
        return await client.health(MODEL) is Health.SERVING
    except DespachoError:
        return False
