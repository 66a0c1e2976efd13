"""What `make` tells Docker, from a program in the place of `docker` that writes it down."""

import json
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client import Label, PredictionResult, Timing
from deploy import prediction, web
from deploy.docker import settings, stack
from deploy.docker.stack import DockerStack
from deploy.errors import StackError
from deploy.state import ROOT, State

DOCKER = """#!{python}
import json, os, sys
from pathlib import Path

folder, words = Path({folder!r}), sys.argv[1:]
containers = folder / "containers"
count = int(containers.read_text()) if containers.exists() else 0
if words[0] == "compose" and words[1] != "version":
    command, rest = words[3], words[4:]
    with (folder / "calls").open("a") as calls:
        print(json.dumps([command, rest, dict(os.environ)]), file=calls)
    if command == "up":
        containers.write_text(next(word for word in rest if "=" in word).partition("=")[2])
    elif command == "down":
        containers.unlink(missing_ok=True)
    elif command == "ps":
        services = [word for word in rest if not word.startswith("-")] or ["server", "worker"]
        for service in services:
            for number in range(count if service == "worker" else bool(count)):
                print(service, number, sep="-")
    elif command == "port" and count:
        print("127.0.0.1:1")
elif words[0] == "inspect":
    restarts = folder / "restarts"
    print(restarts.read_text() if restarts.exists() else 0)
"""

RESULT = PredictionResult(
    labels=(Label("espresso", class_id=1, score=0.9),),
    model="m",
    model_version="1",
    timing=Timing(0.1, 0.1, 0.1, 0.3, 1, 1),
    worker="w",
    request_id="r",
)

FIRST = {
    "SERVER_ADDRESS": "127.0.0.1:0",
    "GATEWAY_ADDRESS": "127.0.0.1:0",
    "SERVER_API_KEYS_FILE": "/run/despacho/keys.toml",
    "SERVER_ALLOW_ANONYMOUS": "false",
    "WORKER_MODEL": "keras-applications:MobileNetV2",
    "TRACING": "1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
}


# What compose is told: that, and which model is meant by requests that name none.
TOLD = {**FIRST, "SERVER_DEFAULT_MODEL": "mobilenetv2"}


class Docker:
    """What was asked of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state = State(folder / "state")
        program = folder / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(DOCKER.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o700)

    @property
    def workers(self) -> int:
        return int((self._folder / "containers").read_text())

    def restart(self, count: int) -> None:
        """Let each container be one that was restarted so often."""
        (self._folder / "restarts").write_text(str(count))

    def told(self, command: str) -> list[tuple[list[str], dict[str, str]]]:
        """Return the words and the settings of each such command of compose, oldest first."""
        calls = map(json.loads, (self._folder / "calls").read_text().splitlines())
        return [
            (words, settings.settings_in(environment))
            for name, words, environment in calls
            if name == command
        ]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    docker = Docker(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DESPACHO_API_KEY", "of the caller")
    use({}, monkeypatch)
    # Nobody answers at the port that is told.
    monkeypatch.setattr(prediction, "wait_for_prediction", lambda *_: RESULT)
    monkeypatch.setattr(prediction, "live_workers", lambda _: {"m": docker.workers})
    monkeypatch.setattr(web, "wait_for_gateway", lambda *_: None)
    return docker


def use(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make these all the settings of the environment."""
    for name in settings.settings_in(os.environ):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_settings_stay_until_the_end(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FIRST, monkeypatch)
    DockerStack(docker.state).up(4)
    use({}, monkeypatch)
    DockerStack(docker.state).up(None)
    use({"WORKER_MODEL": "another"}, monkeypatch)
    DockerStack(docker.state).scale(5)
    assert docker.told("up") == [
        (["--build", "-d", "--scale", "worker=4"], TOLD),
        (["--build", "-d", "--scale", "worker=4"], TOLD),
        (["-d", "--no-recreate", "--scale", "worker=5"], TOLD),
    ]
    DockerStack(docker.state).down()
    assert docker.told("down")[-1][1] == TOLD
    second = {**FIRST, "WORKER_MODEL": "another"}
    use(second, monkeypatch)
    DockerStack(docker.state).up(None)
    assert docker.told("up")[-1] == (["--build", "-d", "--scale", "worker=1"], second)


def test_other_settings_are_not_silently_left_out(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(FIRST, monkeypatch)
    DockerStack(docker.state).up(None)
    DockerStack(docker.state).up(None)
    assert "keeps the settings" not in capsys.readouterr().out
    use({**FIRST, "SERVER_QUEUE_MAX_JOBS": "9"}, monkeypatch)
    DockerStack(docker.state).up(None)
    assert "It keeps the settings it was started with" in capsys.readouterr().out
    assert docker.told("up")[-1][1] == TOLD


def test_settings_that_are_kept_are_read_by_nobody_else(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FIRST, monkeypatch)
    DockerStack(docker.state).up(None)
    assert stat.S_IMODE(docker.state.docker.stat().st_mode) == 0o600
    # That of the person who starts it is none of the services'.
    assert "of the caller" not in docker.state.docker.read_text()
    DockerStack(docker.state).down()
    assert not docker.state.docker.exists()


def test_a_start_that_fails_leaves_no_settings(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StackError("no")

    use(FIRST, monkeypatch)
    monkeypatch.setattr(web, "wait_for_gateway", fail)
    with pytest.raises(StackError, match="no"):
        DockerStack(docker.state).up(None)
    assert docker.told("down")
    assert not docker.state.docker.exists()


def test_containers_that_were_restarted_long_ago_are_no_failure(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    DockerStack(docker.state).up(None)
    docker.restart(7)
    monkeypatch.setattr(prediction, "wait_for_prediction", lambda _, check: (check(), RESULT)[1])
    DockerStack(docker.state).up(None)
    DockerStack(docker.state).scale(3)


def test_a_container_that_is_restarted_twice_meanwhile_does_not_start(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def wait(_: str, check: Callable[[], None]) -> None:
        for count in (7, 8, 9):
            docker.restart(count)
            looks.append(count)
            check()

    monkeypatch.setattr(prediction, "wait_for_prediction", wait)
    with pytest.raises(StackError, match="server does not start"):
        DockerStack(docker.state).up(None)
    assert looks == [7, 8, 9]


def test_nothing_is_started_whose_gateway_would_not_reach_it(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    use({**FIRST, "SERVER_TLS_CERT_FILE": "/run/despacho/server.pem"}, monkeypatch)
    monkeypatch.setenv("DESPACHO_TLS", "true")
    with pytest.raises(StackError, match="GATEWAY_SERVER_TLS=true"):
        DockerStack(docker.state).up(None)
    assert not docker.told("up")


def test_settings_that_are_damaged_are_not_replaced_by_none(tmp_path: Path) -> None:
    file = tmp_path / "docker.json"
    file.write_text('{"SERVER_API')
    with pytest.raises(StackError, match=r"docker\.json is damaged"):
        settings.load(file)


def test_what_the_gateway_needs_may_be_in_an_override(tmp_path: Path) -> None:
    override = tmp_path / "docker-compose.override.yml"
    assert not settings.are_in_file("GATEWAY_SERVER_", override)
    override.write_text("GATEWAY_SERVER_TLS=true")
    assert settings.are_in_file("GATEWAY_SERVER_", override)


def test_the_file_of_compose_is_read_before_anything_is_started(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dot_env = tmp_path / ".env"
    monkeypatch.setattr(stack, "DOT_ENV", dot_env)
    with socket.create_server(("127.0.0.1", 0)) as listener, monkeypatch.context() as of_test:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        of_test.setattr(stack, "DEFAULT_ADDRESS", taken)
        of_test.setattr(stack, "DEFAULT_GATEWAY_ADDRESS", taken)
        dot_env.write_text("SERVER_ADDRESS=127.0.0.1:0\nGATEWAY_ADDRESS=127.0.0.1:0\n")
        DockerStack(docker.state).up(None)
        DockerStack(docker.state).down()
        dot_env.write_text(f"SERVER_ADDRESS={taken}\n")
        use({"GATEWAY_ADDRESS": "127.0.0.1:0"}, monkeypatch)
        with pytest.raises(StackError, match=f"another program listens on {taken}"):
            DockerStack(docker.state).up(None)
        # The environment comes first.
        use({"SERVER_ADDRESS": "127.0.0.1:0", "GATEWAY_ADDRESS": "127.0.0.1:0"}, monkeypatch)
        DockerStack(docker.state).up(None)
        DockerStack(docker.state).down()
        dot_env.write_text("SERVER_API_KEYS_FILE=keys.toml\nSERVER_TLS_CERT_FILE=server.pem\n")
        with pytest.raises(StackError, match="SERVER_TLS_CERT_FILE encrypts"):
            DockerStack(docker.state).up(None)
    assert len(docker.told("up")) == 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("A=1", {"A": "1"}),
        (" export A = a b  # c", {"A": "a b"}),
        ("A='x # y' # z", {"A": "x # y"}),
        ('A="127.0.0.1:1"', {"A": "127.0.0.1:1"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=", {"A": ""}),
        ("# A=1", {}),
        ("A", {}),
    ],
)
def test_lines_are_read_as_compose_reads_them(
    line: str, found: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"\n{line}\n")
    assert settings.in_file(tmp_path / ".env") == found


@pytest.mark.parametrize(
    ("dot_env", "told"),
    [
        ("", {"SERVER_DEFAULT_MODEL": "efficientnet-lite0"}),
        ("# WORKER_MODEL=a\n", {"SERVER_DEFAULT_MODEL": "efficientnet-lite0"}),
        ("REDIS_URL=redis://r\nWORKER_MODEL=a\n", {}),
        ("WORKER_MODEL=keras-applications:VGG16\n", {"SERVER_DEFAULT_MODEL": "vgg16"}),
        ("SERVER_DEFAULT_MODEL = a\n", {}),
        ("export WORKER_MODEL=a\n", {}),
    ],
)
def test_a_file_for_compose_may_say_the_model(
    dot_env: str, told: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    assert settings.for_compose({}, {}, file) == {"SERVER_DEFAULT_MODEL": "efficientnet-lite0"}
    file.write_text(dot_env)
    assert settings.for_compose({"HOME": "/"}, {}, file) == {"HOME": "/", **told}


def test_what_is_mounted_can_be_read_by_the_user_of_the_container(tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    file.touch(mode=0o600)
    stack.make_readable(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize("service", ["server", "worker", "gateway"])
def test_what_is_copied_into_an_image_can_be_read_by_its_user(service: str) -> None:
    lines = (ROOT / service / "Dockerfile").read_text().splitlines()
    chmod = lines.index("RUN chmod -R a+rX /app")
    copies = [number for number, line in enumerate(lines) if line.startswith("COPY ")]
    assert max(copies) < chmod < lines.index("USER despacho")
