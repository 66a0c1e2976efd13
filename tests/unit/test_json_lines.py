"""Lines made quickly, next to those that structlog makes."""

import json
import subprocess
import sys

WRITES = """
import structlog
import sys
from telemetry import logs

fields = {"text": 'quote " and \\\\ and \\n and é', "count": 3, "duration_ms": 0.123, "empty": ""}
lines = logs.configure("test", log_format="json", process="1")
structlog.get_logger().info("call", **fields)
print(lines.line("call", "info", fields), file=sys.stderr)
print(lines.line("call", "info", fields), file=sys.stderr)
"""


def test_a_line_is_the_one_that_structlog_writes_but_for_its_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES], capture_output=True, check=True, text=True, timeout=20
    )
    slow, *quick = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(quick) == 2
    for line in quick:
        assert list(line) == list(slow)
        assert len(line["timestamp"]) == len(slow["timestamp"])
        assert slow["timestamp"] <= line["timestamp"]
        assert {**line, "timestamp": ""} == {**slow, "timestamp": ""}


def test_nothing_is_made_of_what_is_not_written() -> None:
    script = "from telemetry import logs; print(logs.configure('t', level='WARNING'))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=20
    )
    assert done.stdout == "None\n"
