"""A front-end that tells, when asked with SIGUSR1, how many tasks its event loop has.

python -m tests.fuzz.front_end
"""

import asyncio
import itertools
import os
import signal
import sys
from types import FrameType

from server.__main__ import main

_numbers = itertools.count(1)


def tell(number: int, frame: FrameType | None) -> None:
    """Write the count to stderr."""
    del number, frame
    os.write(2, f"tasks #{next(_numbers)} {len(asyncio.all_tasks())}\n".encode())


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    sys.exit(main())
