"""The tests of `client_interrupts.py`, in a process of their own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = Path(__file__).with_name("client_interrupts.py")


def test_exceptions_of_signal_handlers() -> None:
    # Where other tests have converted models, the kernel cannot deliver a signal to this thread
    # any more, as it has no stack for that.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", TESTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
