"""How the threads of a process share a core with others: nobody is interrupted who works.

Linux gives the core to a thread that has just been woken, mostly, and puts off the one that it
finds there. gRPC hands each call from thread to thread several times, and under load, when every
core is busy, each handing over interrupts the thread that answers calls: twice for each call. A
thread of the policy SCHED_BATCH waits until the other one has nothing to do or has had its share,
some milliseconds, and then finds more to do at once. With a core free it starts at once, as ever.
See `man 7 sched` and docs/adr/0028-threads-take-turns.md.
"""

import os
import sys
from contextlib import suppress


def take_turns() -> None:
    """Let no thread that is started from here on interrupt another one, nor the calling one.

    Child processes inherit it. Does nothing where there is no such policy, where it may not be
    chosen, or where somebody has chosen another one than the usual, such as with `chrt`.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
