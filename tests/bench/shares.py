"""What a process spends its time on, by the first of our functions below the event loop or thread.

    py-spy record --native --threads --format raw --output STACKS --pid PID
    python -m tests.bench.shares STACKS [LEAST]

STACKS has a line for each stack that was seen, its frames from the outermost on, and how often it
was seen. Threads that wait count for nothing.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

OURS: Final = re.compile(r"(\S+) \(((?:server|dispatch|telemetry|supervision|worker)/\S+?):\d+\)")
WAITS: Final = re.compile(r"epoll_p?wait|^poll |nanosleep|futex|sem_(timed|clock)?wait|accept4?\b")
LOOPS: Final = ("__main__.py", "app.py", "processes.py")
"""Files whose functions run a loop or start a thread: what is below them is of interest."""

LEAST: Final = 0.01


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Return what part of the samples fell to what, the largest first.

    Args:
        lines: of the raw format of py-spy.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not WAITS.search(frames[-1]):
            counts[_owner(frames)] += int(count)
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()}


def _owner(frames: list[str]) -> str:
    for frame in frames:
        found = OURS.search(frame)
        if found and not found[2].endswith(LOOPS):
            return f"{found[1]} ({found[2]})"
    thread = re.sub(r"thread \(\d+\): ?", "", frames[0])
    return f"gRPC, event loop and libraries, in {thread}"


def main() -> None:
    """Print a table."""
    path, *rest = sys.argv[1:]
    least = float(rest[0]) if rest else LEAST
    with Path(path).open() as lines:
        found = shares(lines)
    rows = [f"| {share:.0%} | `{name}` |" for name, share in found.items() if share >= least]
    sys.stdout.write("\n".join(["| share | in |", "| --: | --- |", *rows, ""]))


if __name__ == "__main__":
    main()
