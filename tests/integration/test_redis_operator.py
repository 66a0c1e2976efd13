"""What docs/operations.md has people do with Redis: as the user and in the words it says."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import redis
import yaml

from tests.processes import ROOT
from tests.redis_rights import PAGE, told_to_operators
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

OLD: Final = "CHANGE-ME-2"
"""Password of `worker` in the example."""

NEW: Final = "secret-of-tomorrow"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Those of the example for Kubernetes, and one for the fixture that waits for Redis."""
    example = ROOT / "deploy" / "kubernetes" / "secrets.example.yaml"
    secret = next(yaml.safe_load_all(example.read_text()))
    path = tmp_path / "users.acl"
    path.write_text(
        secret["stringData"]["users.acl"].replace("default off", "default on nopass +ping")
    )
    return path


@pytest.fixture
def server(tmp_path: Path, users: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start("--aclfile", str(users))
    yield server
    server.stop()


def connected(server: RedisServer, user: str, password: str) -> "redis.Redis":
    return redis.Redis(port=server.port, username=user, password=password)


def test_the_operator_of_the_example_may_send_every_command(server: RedisServer) -> None:
    with connected(server, "operator", "CHANGE-ME-3") as operator:
        for command in dict.fromkeys(told_to_operators()):
            operator.execute_command(*command.split())
        with pytest.raises(redis.exceptions.NoPermissionError):
            operator.get("despacho:models")


def test_a_password_is_replaced_while_both_are_good(server: RedisServer, users: Path) -> None:
    def write(before: str, after: str) -> None:
        users.write_text(users.read_text().replace(before, after))
        operator.execute_command("ACL", "LOAD")

    with (
        connected(server, "operator", "CHANGE-ME-3") as operator,
        connected(server, "worker", OLD) as old,
        connected(server, "worker", NEW) as new,
    ):
        old.time()
        write(f">{OLD}", f">{OLD} >{NEW}")
        old.time()
        new.time()
        write(f">{OLD} >{NEW}", f">{NEW}")
        operator.execute_command("CLIENT", "KILL", "USER", "worker")
        new.time()
        with pytest.raises(redis.exceptions.AuthenticationError):
            old.time()


def test_the_command_for_local_mode_needs_nothing_but_what_is_installed(
    own_redis: RedisServer,
) -> None:
    [line] = re.findall(
        r"^\$ \.venv/bin/(python .* redis://127\.0\.0\.1:PORT) ", PAGE.read_text(), re.MULTILINE
    )
    _, *arguments = shlex.split(line.replace("PORT", str(own_redis.port)))
    done = subprocess.run(
        [sys.executable, *arguments, "INFO", "persistence"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'aof_rewrite_in_progress': 0" in done.stdout
