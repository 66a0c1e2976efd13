"""Starts, stops and shows the containers."""

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from client import PredictionResult
from deploy import access, address, prediction, report, web
from deploy.docker import settings
from deploy.errors import StackError, not_running
from deploy.mode import compose_command, missing_for_docker
from deploy.stack import DEFAULT_ADDRESS, DEFAULT_GATEWAY_ADDRESS, REDIS_CONFIGURATION
from deploy.state import ROOT, State

SERVER: Final = "server"
WORKER: Final = "worker"
GATEWAY: Final = "gateway"
PORT: Final = "50051"
"""Of the front-end, in its container."""

WEB_PORT: Final = "8080"
"""Of the gateway, in its container."""

DOT_ENV: Final = ROOT / ".env"
OVERRIDE: Final = ROOT / "docker-compose.override.yml"
"""What compose reads besides its own file."""

LOG_LINES: Final = 20
MAX_RESTARTS: Final = 2
"""A container that Docker restarts that often while it is waited for does not start by itself."""


class DockerStack:
    """The services in containers; see `deploy.stack.Stack`."""

    def __init__(self, state: State) -> None:
        """Do nothing yet.

        Args:
            state: where mode and settings are remembered.
        """
        self._state = state
        self._earlier_restarts: dict[str, int] = {}

    def up(self, workers: int | None) -> None:
        """Start what is not running, and wait for a real prediction."""
        self._require_engine()
        with self._state.locked():
            # Also those that have ended: they are started again, with their settings.
            before = self._containers("--all")
            count = workers or len(self._containers("--all", WORKER)) or 1
            wanted = settings.settings_in(os.environ)
            kept = settings.load(self._state.docker) if before else None
            if before:
                print("Already running; bringing it up to date.", flush=True)
                if kept is not None and wanted not in ({}, kept):
                    print("  It keeps the settings it was started with; for others: make down up")
            else:
                # Before minutes are spent on building images.
                self._check_start()
            make_readable(REDIS_CONFIGURATION)
            try:
                self._state.mode.write_text("docker\n", encoding="utf-8")
                settings.save(wanted if kept is None else kept, self._state.docker)
                self._run("up", "--build", "-d", "--scale", f"{WORKER}={count}")
                target = self.address()
                result = self._prediction(target)
                gateway = self._published(GATEWAY, WEB_PORT)
                web.wait_for_gateway(gateway, self._check)
            except BaseException:
                if not before:
                    # Also after Ctrl-C: nothing stays half started.
                    self._end()
                raise
        print("Ready.")
        report.show_prediction(result)
        print(f"  gRPC       {target}")
        print(f"  web        http://{gateway}")
        report.show_commands(target)
        report.show_web_command(gateway, result.model)

    def down(self) -> None:
        """Stop everything. Harmless when nothing runs."""
        self._require_engine()
        with self._state.locked():
            was_running = bool(self._containers())
            self._end()
        print("Stopped." if was_running else "Nothing was running.")

    def scale(self, workers: int) -> None:
        """Start or stop workers until there are as many."""
        target = self.address()
        with self._state.locked():
            more = workers - len(self._containers(WORKER))
            before = prediction.live_workers(target)
            self._run("up", "-d", "--no-recreate", "--scale", f"{WORKER}={workers}")
            if more > 0:
                # Each worker may have several processes; of each new one the first is waited for.
                prediction.wait_for_workers(target, before, more, self._check)
        print(f"Workers: {workers}.")

    def worker(self, model: str) -> None:
        """Become one more worker, of another model, until interrupted."""
        if not self._containers():
            raise not_running()
        folder = Path(model)
        is_folder = folder.is_dir()
        mount = ["-v", f"{folder.resolve()}:/model:ro"] if is_folder else []
        source = "/model" if is_folder else model
        self._run("run", "--rm", *mount, "-e", f"WORKER_MODEL={source}", WORKER)

    def status(self) -> bool:
        """Print processes, addresses and health; return whether it can answer."""
        self._require_engine()
        if not self._containers():
            print("Not running.")
            return False
        print("Running in Docker.", flush=True)
        self._run("ps")
        target = self.address()
        print(f"  gRPC       {target}")
        print(f"  web        http://{self._published(GATEWAY, WEB_PORT)}")
        return report.show_health(target)

    def logs(self, service: str | None) -> None:
        """Follow the log of one service, or of all, until interrupted."""
        self._require_engine()
        self._run("logs", "--follow", "--tail", str(LOG_LINES), *([service] if service else []))

    def address(self) -> str:
        """Return where a client of this machine finds the front-end."""
        self._require_engine()
        return self._published(SERVER, PORT)

    def _published(self, service: str, port: str) -> str:
        """Return where a client of this machine finds a port of a container.

        Raises:
            StackError: it is not running.
        """
        found = self._output("port", service, port) if self._containers(service) else ""
        if not found:
            raise not_running()
        return address.for_client(found.splitlines()[0])

    def _require_engine(self) -> None:
        if missing := missing_for_docker():
            raise StackError(f"{missing}; without Docker: make up MODE=local")

    def _check_start(self) -> None:
        """Raise if it could not be called, or its ports are taken."""
        start = {**settings.in_file(DOT_ENV), **os.environ}
        # Compose files have settings as well.
        access.check(start, os.environ, are_all=False)
        if not settings.are_in_file("GATEWAY_SERVER_", OVERRIDE):
            access.check_gateway(start)
        address.require_free(start.get("SERVER_ADDRESS") or DEFAULT_ADDRESS)
        address.require_free(
            start.get("GATEWAY_ADDRESS") or DEFAULT_GATEWAY_ADDRESS, setting="GATEWAY_ADDRESS"
        )

    def _prediction(self, target: str) -> PredictionResult:
        """Prove that it works."""
        print("Started; waiting for a first prediction, while the model loads.", flush=True)
        return prediction.wait_for_prediction(target, self._check)

    def _check(self) -> None:
        """Raise once a container starts again and again."""
        for service in (SERVER, WORKER, GATEWAY):
            for container in self._containers(service):
                command = ("docker", "inspect", "--format", "{{.RestartCount}}", container)
                count = _output_of(command)
                if not count.isdecimal():
                    continue
                # Docker counts for as long as the container exists, and so from before this wait.
                earlier = self._earlier_restarts.setdefault(container, int(count))
                if int(count) - earlier >= MAX_RESTARTS:
                    log = self._output("logs", "--tail", str(LOG_LINES), service)
                    raise StackError(f"{service} does not start", log=log)

    def _end(self) -> None:
        self._run("down", "--remove-orphans")
        for path in (self._state.mode, self._state.docker):
            path.unlink(missing_ok=True)

    def _containers(self, *words: str) -> list[str]:
        return self._output("ps", "-q", *words).split()

    def _run(self, *words: str) -> None:
        """Run compose as it was started, with its output shown.

        Raises:
            StackError: it failed; it has said why.
        """
        command = self._command(*words)
        kept = settings.load(self._state.docker)
        if kept is None:
            kept = settings.settings_in(os.environ)
        environment = settings.for_compose(os.environ, kept, DOT_ENV)
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
            raise StackError(f"failed: {' '.join(command)}")

    def _output(self, *words: str) -> str:
        return _output_of(self._command(*words))

    def _command(self, *words: str) -> list[str]:
        compose = compose_command()
        if compose is None:
            raise StackError("there is no docker compose, and no docker-compose")
        return [*compose, "--project-directory", str(ROOT), *words]


def make_readable(mounted: Path) -> None:
    """Let the user of a container read a file; in a checkout with a strict umask none can.

    Raises:
        StackError: that cannot be done.
    """
    mode = stat.S_IMODE(mounted.stat().st_mode)
    if mode & stat.S_IROTH:
        return
    try:
        mounted.chmod(mode | stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        raise StackError(f"the container cannot read {mounted}: {error}") from error
    print(f"Made readable, for the container: {mounted}")


def _output_of(command: Sequence[str]) -> str:
    """Return what a command prints; empty if it fails."""
    finished = subprocess.run(
        command,
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )
    return finished.stdout.strip()
