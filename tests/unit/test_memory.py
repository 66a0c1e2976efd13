"""Memory that is free goes back to the system."""

import os
import subprocess
import sys

import pytest

from supervision.memory import _malloc_trim

BURST = """
import os, sys, time
from pathlib import Path
from supervision.memory import govern_memory

MIB = 1024 * 1024
PERIOD_S = 0.1


def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


govern_memory(keeps_free=sys.argv[1] == "keeps", period_s=PERIOD_S)
before = held()
# Large ones in the heap, each below a small one that stays.
large, small = [], []
for _ in range(2000):
    large.append(bytearray(100_000))
    small.append(bytearray(1000))
# In use while some periods end: that must not make so much the normal.
time.sleep(3 * PERIOD_S)
assert held() - before > 150 * MIB, (before, held())
large.clear()
end = time.monotonic() + 30
while held() - before > 50 * MIB:
    assert time.monotonic() < end, (before, held())
    time.sleep(PERIOD_S)
"""


@pytest.mark.skipif(_malloc_trim() is None, reason="only glibc is told")
@pytest.mark.parametrize("how", ["keeps", "keeps not"])
def test_what_a_burst_leaves_is_given_back(how: str) -> None:
    subprocess.run([sys.executable, "-c", BURST, how], check=True, timeout=50)


FAULTS = """
import resource, sys
from supervision.memory import govern_memory

if sys.argv[1] == "governed":
    govern_memory(keeps_free=True)
size, count = int(sys.argv[2]), int(sys.argv[3])


def images():
    for _ in range(count):
        yield bytearray(size)


for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    list(images())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, *, size: int, count: int) -> int:
    command = [sys.executable, "-c", FAULTS, how, str(size), str(count)]
    without = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(without)}
    said = subprocess.run(command, check=True, timeout=50, capture_output=True, env=environment)
    return int(said.stdout)


@pytest.mark.skipif(_malloc_trim() is None, reason="only glibc is told")
def test_what_is_free_is_kept_for_the_next_images() -> None:
    # 500 images of 25 pages each.
    assert faults("governed", size=100_000, count=10) < 500
    assert faults("as it comes", size=100_000, count=10) > 5000


@pytest.mark.skipif(_malloc_trim() is None, reason="only glibc is told")
def test_that_goes_for_large_images_too() -> None:
    # 50 images of 2,441 pages each.
    assert faults("governed", size=10_000_000, count=1) < 5000
