"""`docker-compose.yml` keeps up with the settings and with the services."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from deploy.docker.settings import is_setting
from deploy.local.configuration import GATEWAY_STOP_S, SERVER_STOP_S, WORKER_STOP_S
from gateway.settings import GatewaySettings
from server import processes as server_processes
from server.settings import ServerSettings
from telemetry import tracing
from telemetry.setting_names import variable
from worker import processes as worker_processes
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

SET_BY_THE_IMAGE = {
    *("SERVER_ADDRESS", "SERVER_HEALTH_ADDRESS", "SERVER_LOG_FORMAT"),
    *("WORKER_CACHE_DIR", "WORKER_READY_FILE", "WORKER_LOG_FORMAT"),
    "GATEWAY_ADDRESS",
    "GATEWAY_LOG_FORMAT",
}


@pytest.mark.parametrize(
    ("service", "settings"),
    [("server", ServerSettings), ("worker", WorkerSettings), ("gateway", GatewaySettings)],
)
def test_every_setting_reaches_the_container(service: str, settings: type[BaseSettings]) -> None:
    variables = {variable(settings, name, field) for name, field in settings.model_fields.items()}
    passed = {name for name in SERVICES[service]["environment"] if not name.startswith("OTEL_")}
    assert passed == variables - SET_BY_THE_IMAGE


def test_what_containers_are_started_with_is_kept() -> None:
    """By `make`, so that a later command does not start them with something else."""
    read: set[str] = set()
    for service in (SERVICES[name] for name in ("server", "worker", "gateway")):
        environment = service["environment"]
        read |= {name for name, value in environment.items() if value is None}
        read |= set(re.findall(r"\$\{(\w+)", str(service)))
    assert {name for name in read if not is_setting(name)} == set()


def test_what_makes_spans_is_told_where_they_go() -> None:
    server, worker = (
        {name for name in SERVICES[service]["environment"] if name.startswith("OTEL_")}
        for service in ("server", "worker")
    )
    assert server == worker
    assert set(tracing.ENDPOINTS) & server
    assert tracing.EXPORTERS in server


def test_containers_have_time_to_stop_by_themselves() -> None:
    assert SERVICES["server"]["stop_grace_period"] == f"{SERVER_STOP_S}s"
    assert SERVICES["gateway"]["stop_grace_period"] == f"{GATEWAY_STOP_S}s"
    assert SERVICES["worker"]["stop_grace_period"] == f"{WORKER_STOP_S}s"
    # A parent kills what does not stop before Docker kills the parent.
    assert ServerSettings().drain_s + server_processes.STOP_MARGIN_S < SERVER_STOP_S
    assert WorkerSettings().stop_grace_s + worker_processes.STOP_MARGIN_S < WORKER_STOP_S


def test_somebody_takes_note_of_orphans_of_a_worker() -> None:
    assert SERVICES["worker"]["init"] is True


def test_workers_can_be_scaled() -> None:
    assert not {"container_name", "ports"} & set(SERVICES["worker"])


OBSERVERS = {"prometheus", "grafana"}


def test_only_the_apis_are_published() -> None:
    published = {
        name: one["ports"]
        for name, one in SERVICES.items()
        if "ports" in one and name not in OBSERVERS
    }
    assert published == {
        "server": ["${SERVER_ADDRESS:-127.0.0.1:50051}:50051"],
        "gateway": ["${GATEWAY_ADDRESS:-127.0.0.1:8080}:8080"],
    }


def test_a_gateway_that_is_published_does_not_go_by_the_names_of_pages() -> None:
    names = SERVICES["gateway"]["environment"]["GATEWAY_ALLOWED_HOSTS"]
    assert names == "${GATEWAY_ALLOWED_HOSTS:-gateway}"
    assert "gateway" in SERVICES


def test_observers_are_started_only_when_asked_for_and_seen_only_from_this_machine() -> None:
    profiles = {name: one["profiles"] for name, one in SERVICES.items() if "profiles" in one}
    assert profiles == {name: ["observability"] for name in OBSERVERS}
    for name in OBSERVERS:
        [port] = SERVICES[name]["ports"]
        assert ":-127.0.0.1:" in port
        assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"])


def test_what_observers_read_is_there() -> None:
    mounted = [volume.split(":") for name in OBSERVERS for volume in SERVICES[name]["volumes"]]
    files = [ROOT / source for source, *_ in mounted if source.startswith(".")]
    assert files
    assert all(file.exists() for file in files)
    scraped = yaml.safe_load((ROOT / "deploy/observability/prometheus.yml").read_text())
    for job in scraped["scrape_configs"]:
        [discovery] = job["dns_sd_configs"]
        [service] = discovery["names"]
        address = SERVICES[service]["environment"][f"{service.upper()}_METRICS_ADDRESS"]
        assert address == f"${{{service.upper()}_METRICS_ADDRESS-0.0.0.0:{discovery['port']}}}"
