"""A real Prometheus for tests, and what the dashboard asks of it."""

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
SHIPPED: Final = ROOT / "deploy" / "observability"
ALERTS: Final = SHIPPED / "alerts.yml"
DASHBOARD: Final = SHIPPED / "grafana" / "dashboards" / "despacho.json"
PROVISIONED_FROM: Final = SHIPPED / "grafana" / "datasources" / "prometheus.yml"
LIMIT_S: Final = 20.0
RATE_INTERVAL: Final = "10s"
"""What Grafana would put in the place of `$__rate_interval`: four scrapes or more."""

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs `prometheus` and `promtool` on PATH (apt-get install prometheus)",
)


def alerts() -> list[dict[str, Any]]:
    """Return the alert rules."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard, without the rows."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Return what the dashboard asks for, by panel and legend, with its variables filled in."""
    return {
        f"{panel['title']} ({target['legendFormat']})": target["expr"]
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$model", ".+")
        for panel in panels()
        for target in panel["targets"]
    }


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that an expression reads."""
    return set(re.findall(r"\b(?:despacho|grpc_server)_\w+|\bup\b", expression))


class Prometheus:
    """Asks a Prometheus over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url

    def api(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; an expression that is none fails."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(  # noqa: S310 - our own
            f"{self._url}/api/v1/{path}?{query}", timeout=LIMIT_S
        ) as response:
            return json.load(response)["data"]

    def result(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now."""
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found

    def number(self, expression: str) -> float:
        """Return the one value of an expression; 0: there is none."""
        return sum(float(series["value"][1]) for series in self.result(expression))

    def is_ready(self) -> bool:
        """Return whether it answers."""
        try:
            self.api("status/buildinfo")
        except OSError:
            return False
        return True


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Run a Prometheus with what is shipped while inside; it may not be ready yet.

    Args:
        folder: for its configuration and data.
        targets: address of each job, which is found by its name in Docker.
    """
    configuration = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(ALERTS)]
    jobs = configuration["scrape_configs"]
    assert {job["job_name"] for job in jobs} == set(targets)
    for job in jobs:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.kill()
        process.wait()
