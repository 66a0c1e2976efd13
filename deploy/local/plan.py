"""What runs locally, and with which settings."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy import access, address
from deploy.stack import DEFAULT_ADDRESS, DEFAULT_GATEWAY_ADDRESS, SETTINGS, default_model
from deploy.state import write_private

OF_A_WORKER: Final = ("WORKER_", "OTEL_")
METRICS: Final = "WORKER_METRICS_ADDRESS"
OF_ONE_WORKER: Final = {METRICS, "WORKER_READY_FILE"}
"""No second one can have the same."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Decided when it is started; only the number of workers changes later."""

    server_address: str

    redis_url: str

    redis_port: int | None
    """Of the embedded server; None: REDIS_URL named another."""

    workers: int

    settings: dict[str, str]
    """Settings that came from the user's environment."""

    gateway_address: str = DEFAULT_GATEWAY_ADDRESS

    gateway_settings: dict[str, str] = dataclasses.field(default_factory=dict)
    """How the gateway connects to the front-end, unless the user's settings say it."""

    def save(self, path: Path) -> None:
        """Remember it, readable for its owner only: an URL may have a password."""
        write_private(path, json.dumps(dataclasses.asdict(self), indent=2))

    @property
    def variables(self) -> dict[str, str]:
        """What the services get, besides the user's own environment."""
        return {
            "SERVER_ADDRESS": self.server_address,
            "REDIS_URL": self.redis_url,
            "GATEWAY_SERVER_ADDRESS": address.for_client(self.server_address),
            **self.gateway_settings,
            **{name: self.settings[name] for name in self.settings if name.startswith("GATEWAY_")},
            "GATEWAY_ADDRESS": self.gateway_address,
            **default_model(self.settings, has_our_files=True),
        }

    def of_worker(self, number: int) -> dict[str, str]:
        """Return the settings in which a worker differs from the first one, which is 1.

        Ports in a row, as Prometheus has to be told them.
        """
        parts = address.split(self.settings.get(METRICS, ""))
        if number == 1 or parts is None or parts[1] == 0:
            return {}
        return {METRICS: f"{parts[0]}:{parts[1] + number - 1}"}

    def for_worker(self, environment: Mapping[str, str], model: str) -> dict[str, str]:
        """Return the environment of one more worker.

        Args:
            environment: of its caller; what that says comes first.
            model: what `WORKER_MODEL` takes.
        """
        kept = {
            name: value
            for name, value in self.settings.items()
            if name.startswith(OF_A_WORKER) and name not in OF_ONE_WORKER
        }
        return {**kept, **environment, **self.variables, "WORKER_MODEL": model}

    def with_workers(self, workers: int) -> "Plan":
        """Return the same with another number of workers."""
        return dataclasses.replace(self, workers=workers)


def load(path: Path) -> Plan | None:
    """Return the plan that was saved; None: none, or one of another version."""
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of our services."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(SETTINGS) or name == "REDIS_URL"
    }


def make(environment: Mapping[str, str], workers: int, previous: Plan | None) -> Plan:
    """Decide what to run.

    Args:
        environment: the user's.
        workers: how many.
        previous: what ran last time; the embedded Redis keeps its port if it can,
            so that workers that were started by hand find it again.
    """
    settings = settings_in(environment)
    redis_url = settings.get("REDIS_URL", "")
    redis_port = None if redis_url else _redis_port(previous)
    return Plan(
        server_address=address.with_port(settings.get("SERVER_ADDRESS") or DEFAULT_ADDRESS),
        redis_url=redis_url or f"redis://127.0.0.1:{redis_port}/0",
        redis_port=redis_port,
        workers=workers,
        settings=settings,
        gateway_address=address.with_port(
            settings.get("GATEWAY_ADDRESS") or DEFAULT_GATEWAY_ADDRESS
        ),
        gateway_settings=access.gateway_settings(environment),
    )


def once_more(previous: Plan, workers: int | None) -> Plan:
    """Decide to run what ran before, whatever the environment says now.

    Args:
        previous: what ran.
        workers: how many; None: as many as before, at least one.
    """
    made = make(previous.settings, workers or previous.workers or 1, previous)
    return dataclasses.replace(made, gateway_settings=previous.gateway_settings)


def _redis_port(previous: Plan | None) -> int:
    if previous is not None and previous.redis_port is not None:
        port = previous.redis_port
        if not address.is_taken(f"127.0.0.1:{port}"):
            return port
    return address.free_port()
