"""What supervisord is told to run."""

import dataclasses
import os
import shlex
import tempfile
from pathlib import Path

import pytest
from supervisor.datatypes import dict_of_key_value_pairs
from supervisor.options import UnhosedConfigParser

from deploy import address
from deploy.errors import StackError
from deploy.local import plan
from deploy.local.configuration import GATEWAY_STOP_S, SERVER_STOP_S, WORKER_STOP_S, rendered
from deploy.local.plan import Plan
from deploy.state import MAX_SOCKET_BYTES, State
from gateway.settings import GatewaySettings
from server.settings import ServerSettings
from worker.bundled.spec import NAME as BUNDLED_NAME
from worker.keras_applications import PREFIX, keras_application
from worker.settings import WorkerSettings

REDIS_BINARY = Path("/opt/redis server")


def a_plan(*, workers: int = 1, redis_port: int | None = 7000) -> Plan:
    return Plan("127.0.0.1:50051", "redis://127.0.0.1:7000/0", redis_port, workers, {})


def sections(folder: Path, planned: Plan) -> UnhosedConfigParser:
    """What supervisord reads."""
    parser = UnhosedConfigParser()
    binary = REDIS_BINARY if planned.redis_port else None
    parser.read_string(rendered(planned, State(folder), binary))
    return parser


def programs(parser: UnhosedConfigParser) -> list[str]:
    return [name.removeprefix("program:") for name in parser.sections() if "program:" in name]


def test_there_is_one_program_for_each_worker(tmp_path: Path) -> None:
    found = programs(sections(tmp_path, a_plan(workers=3)))
    assert found == ["redis", "server", "gateway", "worker-1", "worker-2", "worker-3"]


def test_another_number_of_workers_changes_no_other_program(tmp_path: Path) -> None:
    # Otherwise supervisord would restart them.
    few, many = (sections(tmp_path, a_plan(workers=count)) for count in (1, 2))
    assert all(dict(few[name]) == dict(many[name]) for name in few.sections())


def metrics_address(folder: Path, worker: str, setting: str) -> str | None:
    """What supervisord gives a worker besides its own environment."""
    settings = {"WORKER_METRICS_ADDRESS": setting} if setting else {}
    planned = dataclasses.replace(a_plan(workers=3), settings=settings)
    line = sections(folder, planned).saneget(f"program:{worker}", "environment", "")
    given: dict[str, str] = dict_of_key_value_pairs(line)
    return given.get("WORKER_METRICS_ADDRESS")


def test_each_worker_serves_its_metrics_at_a_port_of_its_own(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "[::1]", "my-host.example.org"):  # noqa: S104 - read, not bound
        assert metrics_address(tmp_path, "worker-1", f"{host}:9100") is None
        assert metrics_address(tmp_path, "worker-3", f"{host}:9100") == f"{host}:9102"
    # Any free one, or nowhere.
    for setting in ("127.0.0.1:0", ""):
        assert metrics_address(tmp_path, "worker-2", setting) is None


def test_redis_of_the_user_is_not_started(tmp_path: Path) -> None:
    assert "redis" not in programs(sections(tmp_path, a_plan(redis_port=None)))


def test_services_have_time_to_stop_by_themselves(tmp_path: Path) -> None:
    parser = sections(tmp_path, a_plan())
    assert parser.getint("program:server", "stopwaitsecs") == SERVER_STOP_S
    assert ServerSettings.model_fields["drain_s"].default < SERVER_STOP_S
    assert parser.getint("program:gateway", "stopwaitsecs") == GATEWAY_STOP_S
    assert GatewaySettings.model_fields["drain_s"].default < GATEWAY_STOP_S
    assert parser.getint("program:worker-1", "stopwaitsecs") == WORKER_STOP_S
    assert WorkerSettings.model_fields["stop_grace_s"].default < WORKER_STOP_S


def test_odd_characters_of_a_path_survive(tmp_path: Path) -> None:
    folder = tmp_path / "50% of 'all'#1;work"
    parser = sections(folder, a_plan())
    command = shlex.split(parser.saneget("program:redis", "command"))
    assert command[0] == str(REDIS_BINARY)
    assert command[command.index("--dir") + 1] == str(folder / "redis")
    log = parser.saneget("program:server", "stdout_logfile")
    assert log == str(folder / "logs" / "server.log")


@pytest.mark.parametrize("name", ["my #1 project", "a ;b"])
def test_a_path_that_would_be_cut_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"cannot be run with the path {tmp_path / name}"):
        sections(tmp_path / name, a_plan())


def test_root_is_root_whatever_the_environment_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    # As after `su` of another user.
    monkeypatch.setenv("LOGNAME", "alice")
    assert sections(tmp_path, a_plan()).saneget("supervisord", "user") == "0"


def test_every_log_is_bounded(tmp_path: Path) -> None:
    parser = sections(tmp_path, a_plan())
    for name in programs(parser):
        assert parser[f"program:{name}"]["stdout_logfile_maxbytes"] == "10MB"
        assert parser.getint(f"program:{name}", "stdout_logfile_backups") > 0


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    folders = [tmp_path / ("deep" * 30) / end for end in ("a", "b")]
    sockets = [State(folder).socket for folder in folders]
    assert all(len(str(path)) <= MAX_SOCKET_BYTES for path in sockets)
    assert sockets[0] != sockets[1]


def test_the_socket_is_found_from_a_shell_with_another_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    state = State(tmp_path / ("deep" * 30))
    found = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        found.add(state.socket)
        monkeypatch.setattr(tempfile, "tempdir", None)
    assert len(found) == 1


def test_a_short_path_keeps_its_socket() -> None:
    assert State(Path("/tmp/x")).socket == Path("/tmp/x/supervisor.sock")  # noqa: S108


def test_a_plan_is_remembered_and_private(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    a_plan(workers=2).save(path)
    assert plan.load(path) == a_plan(workers=2)
    assert path.stat().st_mode & 0o077 == 0


def test_a_plan_of_another_version_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"workers": 2, "colour": "red"}')
    assert plan.load(path) is None
    assert plan.load(tmp_path / "nothing") is None


def test_the_users_redis_is_used() -> None:
    made = plan.make({"REDIS_URL": "redis://elsewhere:6379/1"}, 1, None)
    assert (made.redis_url, made.redis_port) == ("redis://elsewhere:6379/1", None)


def test_the_embedded_redis_keeps_its_port() -> None:
    before = plan.make({}, 1, None)
    assert plan.make({}, 1, before).redis_port == before.redis_port


def test_what_ran_before_runs_once_more_in_any_environment(tmp_path: Path) -> None:
    first = {
        "SERVER_ADDRESS": "127.0.0.1:7000",
        "SERVER_API_KEYS_FILE": "keys.toml",
        "REDIS_URL": "redis://elsewhere:6379/1",
        "DESPACHO_TLS_CA": "/ca.pem",
    }
    before = plan.make(first, 3, None)
    before.save(tmp_path / "plan.json")
    kept = plan.load(tmp_path / "plan.json")
    assert kept is not None
    assert plan.once_more(kept, None) == before
    assert plan.once_more(kept, 2) == before.with_workers(2)
    # After `make scale WORKERS=0`, too, there is a prediction to wait for.
    assert plan.once_more(before.with_workers(0), None).workers == 1


def test_one_more_worker_gets_the_settings_of_the_start() -> None:
    first = {
        "WORKER_CACHE_DIR": "/cache",
        "WORKER_ENGINE": "auto",
        "WORKER_MODEL": "/first",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
    }
    others = {
        "HOME": "/home/me",
        "SERVER_ADDRESS": "127.0.0.1:0",
        "WORKER_METRICS_ADDRESS": "127.0.0.1:9100",
        "WORKER_READY_FILE": "/tmp/ready",  # noqa: S108 - nothing is made there
    }
    running = plan.make({**first, **others}, 1, None)
    of_worker = running.for_worker({"HOME": "/home/you", "REDIS_URL": "redis://other"}, "/mine")
    assert of_worker == {
        **running.variables,
        **first,
        "WORKER_MODEL": "/mine",
        "HOME": "/home/you",
    }
    assert running.for_worker({"WORKER_ENGINE": "litert"}, "m")["WORKER_ENGINE"] == "litert"


def test_where_spans_go_is_a_setting(tmp_path: Path) -> None:
    running = plan.make({"OTEL_TRACES_EXPORTER": "otlp"}, 1, None)
    running.save(tmp_path / "plan.json")
    assert plan.load(tmp_path / "plan.json") == running
    assert plan.settings_in({"OTEL_TRACES_EXPORTER": "none"}) != running.settings


def test_port_zero_becomes_a_free_port() -> None:
    made = plan.make({"SERVER_ADDRESS": "127.0.0.1:0"}, 1, None)
    host, _, port = made.server_address.rpartition(":")
    assert (host, int(port) in address.PORTS) == ("127.0.0.1", True)


def test_the_gateway_finds_the_front_end() -> None:
    made = plan.make({"SERVER_ADDRESS": "0.0.0.0:7000", "GATEWAY_ADDRESS": "127.0.0.1:0"}, 1, None)
    assert made.variables["GATEWAY_SERVER_ADDRESS"] == "127.0.0.1:7000"
    assert made.variables["GATEWAY_ADDRESS"] == made.gateway_address
    assert not made.gateway_address.endswith(":0")


def test_the_gateway_encrypts_if_the_front_end_does() -> None:
    made = plan.make({"DESPACHO_TLS_CA": "/ca.pem", "DESPACHO_API_KEY": "secret"}, 1, None)
    assert made.variables["GATEWAY_SERVER_TLS"] == "true"
    assert made.variables["GATEWAY_SERVER_CA_FILE"] == "/ca.pem"
    assert "secret" not in made.variables.values()


def default_model(model: str) -> str | None:
    return plan.make({"WORKER_MODEL": model}, 1, None).variables.get("SERVER_DEFAULT_MODEL")


def test_requests_without_a_name_mean_the_model_that_is_started(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('name = "mine"')
    assert default_model("") == BUNDLED_NAME == default_model(BUNDLED_NAME)
    assert default_model(str(tmp_path)) == "mine"
    (tmp_path / "model.toml").write_text('name = "mine"', encoding="utf-8-sig")
    assert default_model(str(tmp_path)) == "mine"
    name = "MobileNetV2"
    assert default_model(PREFIX + name) == keras_application(name, tmp_path).name
    asked_for = plan.make({"WORKER_MODEL": str(tmp_path), "SERVER_DEFAULT_MODEL": "a"}, 1, None)
    assert "SERVER_DEFAULT_MODEL" not in asked_for.variables


def test_a_model_that_says_no_name_is_left_to_the_worker(tmp_path: Path) -> None:
    for text in ("name = 1", "name", "file = 'a'"):
        (tmp_path / "model.toml").write_text(text)
        assert default_model(str(tmp_path)) is None
    assert default_model(str(tmp_path / "nothing")) is None
