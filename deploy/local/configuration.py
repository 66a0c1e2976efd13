"""The configuration of supervisord, made from a plan. Pure."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Final

from deploy.errors import StackError
from deploy.local.plan import Plan
from deploy.stack import REDIS_CONFIGURATION
from deploy.state import ROOT, State

REDIS: Final = "redis"
SERVER: Final = "server"
GATEWAY: Final = "gateway"

# Each longer than the service itself waits, or supervisord would cut it short.
REDIS_STOP_S: Final = 30
SERVER_STOP_S: Final = 45
"""SERVER_DRAIN_S is 30 s by default; then connections are closed."""
GATEWAY_STOP_S: Final = 45
"""GATEWAY_DRAIN_S is 30 s by default; then connections are closed."""
WORKER_STOP_S: Final = 30
"""WORKER_STOP_GRACE_S is 8 s by default; then threads are joined."""


def worker(number: int) -> str:
    """Name a worker; the first is 1."""
    return f"worker-{number}"


def is_worker(name: str) -> bool:
    """Return whether a process of that name is a worker."""
    return name.startswith("worker-")


def log_file(state: State, name: str) -> Path:
    """Return where a service logs."""
    return state.logs / f"{name}.log"


def rendered(plan: Plan, state: State, redis_binary: Path | None) -> str:
    """Return the whole file.

    Args:
        plan: what runs.
        state: where it is kept.
        redis_binary: the embedded server; None if the plan has none.

    Raises:
        StackError: supervisord cannot read one of the paths.
    """
    _check_paths(ROOT, state.folder, Path(sys.executable))
    sections = [_daemon(state)]
    if redis_binary is not None and plan.redis_port is not None:
        command = [
            *(str(redis_binary), str(REDIS_CONFIGURATION)),
            *("--bind", "127.0.0.1", "--port", str(plan.redis_port)),
            *("--dir", str(state.redis)),
            # A title is written over the environment, and with it over the mark by
            # which a process of ours is known.
            *("--set-proc-title", "no"),
        ]
        sections.append(_program(state, REDIS, command, priority=1, stop_s=REDIS_STOP_S))
    python = sys.executable
    sections.append(
        _program(state, SERVER, [python, "-m", "server"], priority=2, stop_s=SERVER_STOP_S)
    )
    sections.append(
        _program(state, GATEWAY, [python, "-m", "gateway"], priority=3, stop_s=GATEWAY_STOP_S)
    )
    for number in range(1, plan.workers + 1):
        command = [python, "-m", "worker"]
        section = _program(state, worker(number), command, priority=3, stop_s=WORKER_STOP_S)
        sections.append(section + _environment(plan.of_worker(number)))
    return "\n".join(sections)


def _daemon(state: State) -> str:
    # It warns when it runs as root, unless it is told to. By number: what the environment
    # calls the user may be somebody else, as after `su`.
    user = "" if os.getuid() else "user=0\n"
    return f"""\
; Made by `make up`; changes are lost.
[unix_http_server]
file={_plain(state.socket)}
chmod=0700

[supervisord]
nodaemon=true
silent=true
directory={_plain(ROOT)}
logfile={_plain(state.supervisor_log)}
logfile_maxbytes=5MB
logfile_backups=1
pidfile={_plain(state.folder / "supervisord.pid")}
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

; For a person: .venv/bin/supervisorctl -c THIS_FILE restart worker-1
[supervisorctl]
serverurl=unix://{_plain(state.socket)}
"""


def _program(state: State, name: str, command: list[str], *, priority: int, stop_s: int) -> str:
    # A process that ends within startsecs counts as a failed start, and is started
    # again after ever longer pauses: 1 s, 2 s, ... for about an hour.
    return f"""\
[program:{name}]
command={_plain(shlex.join(command))}
priority={priority}
autorestart=true
startsecs=5
startretries=80
stopsignal=TERM
stopwaitsecs={stop_s}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={_plain(log_file(state, name))}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


def _environment(settings: dict[str, str]) -> str:
    """Return the line of a program that has settings of its own."""
    pairs = ",".join(f'{name}="{value}"' for name, value in settings.items())
    return f"environment={_plain(pairs)}\n" if pairs else ""


def _plain(value: object) -> str:
    """Return a text that supervisord takes as it is: it expands `%(name)s`."""
    return str(value).replace("%", "%%")


def _check_paths(*paths: Path) -> None:
    for path in paths:
        if re.search(r"\s[#;]", str(path)):
            raise StackError(
                f"it cannot be run with the path {path}: for supervisord a comment begins"
                " at # or ; after a blank; choose another folder, or DESPACHO_STATE=FOLDER"
            )
