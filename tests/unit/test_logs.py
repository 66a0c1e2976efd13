"""What a log line may show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

FAILS = """
import logging, sys
import structlog
from telemetry import logs

logs.configure("test", log_format=sys.argv[1])

def fail(key):
    raise RuntimeError("it failed")

for log in (structlog.get_logger(), logging.getLogger("library")):
    try:
        fail("".join(reversed("terces")))
    except RuntimeError as error:
        log.error("unexpected", exc_info=error)
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_does_not_show_what_variables_hold(log_format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILS, log_format],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr.count("it failed") == 2
    assert "secret" not in done.stderr


QUOTES = """
import logging, sys
import structlog
from telemetry import logs

logs.configure("test", log_format="console")
nasty = "\\x1b[2J\\x9b1m\\u202e\\r\\nforged"
for log in (structlog.get_logger(), logging.getLogger("library")):
    try:
        raise RuntimeError(f"about {nasty}")
    except RuntimeError as error:
        log.error(f"event {nasty}", exc_info=error)
structlog.get_logger().info("request", path=f"/{nasty}", other=[nasty], name="caf\u00e9 \U0001f600")
"""


def test_on_a_terminal_the_text_of_callers_is_only_text() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", QUOTES],
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    assert done.stderr.count("[2J") == 6
    # The colours are the renderer's own.
    lines = re.sub(r"\x1b\[\d+m", "", done.stderr).split("\n")
    assert all(line.isprintable() for line in lines), done.stderr
    # Only a traceback has more than one line.
    assert sum(line.startswith("forged") for line in lines) == 2
    assert "caf\u00e9 \U0001f600" in done.stderr


GOES_ON = """
import logging, sys
import structlog
from telemetry import logs

logs.configure("test", log_format=sys.argv[1])
for _ in range(3):
    structlog.get_logger().warning("x" * 10_000)
    logging.getLogger("library").warning("x" * 10_000)
print("done")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_loses_lines_and_nothing_else(log_format: str) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", GOES_ON, log_format],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_reader_who_has_gone_is_not_missed() -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        done = subprocess.run(
            [sys.executable, "-c", GOES_ON, "json"],
            stdout=subprocess.PIPE,
            stderr=ours,
            text=True,
            check=False,
        )
    finally:
        os.close(ours)
    assert (done.returncode, done.stdout) == (0, "done\n")
