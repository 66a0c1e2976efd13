"""The threads that answer requests, and their end."""

import threading
from collections.abc import Sequence
from typing import Any, Final

from cheroot.workers.threadpool import ThreadPool, WorkerThread

CUT_EVERY_S: Final = 0.1
"""How often it is looked for requests in progress whose time is over."""


class RequestThreads(ThreadPool):
    """cheroot's, which cut off all that is left at once when its time is over.

    cheroot cuts off what its first thread has and waits for the thread, which goes on with the
    next connection; the time of all others goes on, too.
    """

    def stop(self, timeout: float) -> None:  # type: ignore[override] # any number will do
        """End; requests in progress, and those that wait for a thread, may take so long.

        Args:
            timeout: how long, seconds.
        """
        have_ended = threading.Event()
        cutter = threading.Thread(
            target=self._cut_after,
            args=(timeout, list(self._threads), have_ended),  # type: ignore[attr-defined]
            name="cutter",
        )
        cutter.start()
        # Without a limit it leaves the cutting to us.
        super().stop(None)  # type: ignore[arg-type]
        have_ended.set()
        cutter.join()

    def _cut_after(
        self, timeout_s: float, workers: Sequence[WorkerThread], have_ended: threading.Event
    ) -> None:
        pause_s = timeout_s
        while not have_ended.wait(pause_s):
            pause_s = CUT_EVERY_S
            with self._queue.mutex:  # type: ignore[attr-defined] # not in its stubs
                waiting = list(self._queue.queue)  # type: ignore[attr-defined]
            for connection in (*waiting, *(worker.conn for worker in workers)):
                self._cut(connection)

    def _cut(self, connection: Any) -> None:
        """Read no more of a connection."""
        # A thread may have none, and what tells one to end waits among them.
        if hasattr(connection, "rfile"):
            self._force_close(connection)  # type: ignore[attr-defined] # not in its stubs
