"""What a log line may show."""

import subprocess
import sys

import pytest

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
