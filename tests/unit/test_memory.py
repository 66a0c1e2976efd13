"""Memory that is free goes back to the system."""

import os
import subprocess
import sys

import pytest

from supervision.memory import Trimmer, _malloc_trim

BURST = """
from supervision.memory import Trimmer, _malloc_trim, held_bytes

MIB = 1024 * 1024
trim = _malloc_trim()
assert trim is not None
trimmer = Trimmer(trim, held_bytes)
before = held_bytes()
# Large ones in the heap, each below a small one that stays.
large, small = [], []
for _ in range(2000):
    large.append(bytearray(100_000))
    small.append(bytearray(1000))
large.clear()
held = held_bytes()
assert held - before > 150 * MIB, (before, held)
trimmer.look()
assert held_bytes() - before < 50 * MIB, (before, held, held_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there glibc is asked")
def test_what_a_burst_leaves_is_given_back() -> None:
    subprocess.run([sys.executable, "-c", BURST], check=True, timeout=50)


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


class Memory:
    """Held by a process; half of what was added can be given back."""

    def __init__(self) -> None:
        self.held = 100
        self.trims = 0

    def trim(self) -> None:
        self.trims += 1
        self.held -= 50


def test_it_is_only_done_when_much_more_is_held() -> None:
    memory = Memory()
    trimmer = Trimmer(memory.trim, lambda: memory.held, growth_bytes=80)
    memory.held = 180
    trimmer.look()
    assert memory.trims == 0
    memory.held = 200
    trimmer.look()
    assert (memory.trims, memory.held) == (1, 150)
    # What could not be given back is no reason to try again.
    memory.held = 230
    trimmer.look()
    assert memory.trims == 1


def test_what_the_process_gives_back_by_itself_counts() -> None:
    memory = Memory()
    trimmer = Trimmer(memory.trim, lambda: memory.held, growth_bytes=80)
    memory.held = 20
    trimmer.look()
    memory.held = 110
    trimmer.look()
    assert memory.trims == 1
