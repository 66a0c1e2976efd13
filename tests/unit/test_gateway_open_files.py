"""How many files a gateway may open."""

import resource
import subprocess
import sys

import pytest

from gateway import open_files

RAISE = """
import resource
from gateway import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
open_files.raise_limit()
print(open_files.limit())
"""


@pytest.mark.parametrize("hard", [64, 256])
def test_a_gateway_opens_as_many_as_it_may(hard: int) -> None:
    # For good, and so in a process of its own.
    text = RAISE.format(hard=hard)
    assert int(subprocess.check_output([sys.executable, "-c", text], timeout=60)) == hard


def test_no_limit_is_more_than_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    none = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (none, none))
    assert open_files.limit() > open_files.WANTED
