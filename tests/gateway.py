"""A gateway in this process, and a plain HTTP client for it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from gateway.app import create_app
from gateway.front_end import connected
from gateway.held_bytes import HeldBytes
from gateway.http_server import HttpServer
from gateway.settings import GatewaySettings
from gateway.stats_hub import StatsHub

LIMIT_S = 15.0
"""How long a test waits for what must happen."""


class Web:
    """Calls a gateway over HTTP, as anybody would."""

    def __init__(self, address: str, held: HeldBytes | None = None) -> None:
        self.address = address
        self.held = held or HeldBytes(0)
        """What the gateway keeps of images, if it is one of this process."""
        self._pool = urllib3.PoolManager(retries=False, timeout=LIMIT_S)

    def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """Send one request; underscores in the names of headers become hyphens."""
        return self._pool.request(
            method,
            f"http://{self.address}{path}",
            body=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def send_parts(self, path: str, *parts: tuple[str, bytes], name: str = "image") -> Any:
        """Send several images as a browser's form would."""
        fields = [(name, (filename, data, "image/png")) for filename, data in parts]
        return self._pool.request("POST", f"http://{self.address}{path}", fields=fields)

    @contextmanager
    def events(self, path: str, **headers: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """Listen to server-sent events while inside."""
        response = self._pool.request(
            "GET",
            f"http://{self.address}{path}",
            headers=headers,
            preload_content=False,
        )
        try:
            assert response.status == 200, response.data
            yield parsed(response)
        finally:
            response.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


def parsed(response: urllib3.BaseHTTPResponse) -> Iterator[tuple[str, Any]]:
    """Yield name and data of each event."""
    text = b""
    for chunk in response.stream(1024):
        text += chunk
        *events, text = text.split(b"\n\n")
        for event in events:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
            if b"data" in fields:
                yield fields[b"event"].decode(), json.loads(fields[b"data"])


@contextmanager
def gateway(server_address: str, **settings: object) -> Iterator[Web]:
    """Run a gateway on a free port, in threads of this process."""
    chosen = GatewaySettings.model_validate(
        {
            "address": "127.0.0.1:0",
            "server_address": server_address,
            "threads": 8,
            "max_stats_listeners": 2,
            "drain_s": 5,
            **settings,
        }
    )
    with connected(chosen) as upstream:
        stats = StatsHub(upstream, max_listeners=chosen.max_stats_listeners)
        held = HeldBytes(chosen.max_held_bytes)
        server = HttpServer(chosen, create_app(chosen, upstream, stats, held))
        web = Web(server.start(), held)
        try:
            yield web
        finally:
            web.close()
            stats.close()
            server.stop()
