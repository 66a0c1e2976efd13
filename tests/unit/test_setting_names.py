"""A variable that looks like a setting and is none is not ignored in silence."""

import pytest
from structlog.testing import capture_logs

from gateway.settings import GatewaySettings
from telemetry.setting_names import warn_of_unread
from tests.processes import Process
from worker.settings import WorkerSettings


def test_a_misspelt_variable_is_named_beside_what_it_may_mean() -> None:
    with capture_logs() as lines:
        warn_of_unread(
            WorkerSettings,
            {"WORKER_DECODE_THREAD": "hunter2", "WORKER_PROCESSES": "1", "WORKERS": "2"},
        )
    assert [line["variable"] for line in lines] == ["WORKER_DECODE_THREAD"]
    assert lines[0]["alike"][0] == "WORKER_DECODE_THREADS"
    assert lines[0]["log_level"] == "warning"
    assert "hunter2" not in str(lines)


def test_settings_are_known_in_any_case_and_without_the_prefix() -> None:
    with capture_logs() as lines:
        warn_of_unread(WorkerSettings, {"worker_model": "m", "REDIS_URL": "redis://r", "HOME": "/"})
        warn_of_unread(WorkerSettings, {"worker_modle": "m"})
    assert [line["variable"] for line in lines] == ["worker_modle"]


def test_what_kubernetes_sets_for_services_is_no_setting() -> None:
    environment = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "8080",
        "GATEWAY_SERVICE_PORT_HTTP": "8080",
        "GATEWAY_PORT": "tcp://10.0.0.1:8080",
        "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    with capture_logs() as lines:
        warn_of_unread(GatewaySettings, environment)
    assert lines == []


def test_a_port_that_somebody_wanted_to_set_is_not_taken_for_one_of_kubernetes() -> None:
    with capture_logs() as lines:
        warn_of_unread(GatewaySettings, {"GATEWAY_PORT": "8080"})
    assert [line["variable"] for line in lines] == ["GATEWAY_PORT"]


@pytest.mark.parametrize("service", ["server", "worker", "gateway"])
def test_every_service_warns_as_it_starts(service: str) -> None:
    name = f"{service.upper()}_DRIAN_S"
    environment = {
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SERVER_ADDRESS": "127.0.0.1:0",
        "GATEWAY_ADDRESS": "127.0.0.1:0",
        f"{service.upper()}_LOG_FORMAT": "json",
        name: "1",
    }
    started = Process(["-m", service], environment)
    try:
        started.wait_for_line(rf'"variable": "{name}".*"event": "unknown setting"')
    finally:
        started.clean_up()
