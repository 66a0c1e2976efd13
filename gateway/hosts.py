"""By which names the gateway may be called where it asks nobody for a key.

Any page may give its own name the address of this machine once it is loaded (DNS rebinding):
for the browser the gateway is then of the page's own origin, and only `Host` says otherwise.
No page has an IP address, or `localhost`, for a name.
"""

import ipaddress

from flask import Flask, request

from gateway.problems import Refused
from gateway.settings import GatewaySettings


def register(app: Flask, settings: GatewaySettings) -> None:
    """Refuse requests for other hosts."""
    allowed = settings.allowed_names

    @app.before_request
    def guard() -> None:
        # Browsers send a `Host`, whatever a page wants.
        host = request.headers.get("Host")
        if allowed is None or host is None:
            return
        name = _without_port(host).lower()
        if not (name == "localhost" or name in allowed or _is_address(name)):
            raise Refused(
                403,
                "a gateway that wants no key is called by its IP address, as localhost, or by a"
                " name in GATEWAY_ALLOWED_HOSTS",
                reason="HOST_NOT_ALLOWED",
                field="Host",
            )


def _without_port(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
