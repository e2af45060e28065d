"""Background writes (fsync, cache files), run by one thread and drained at exit."""

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Work = Callable[[], None]

_MOST = 32
"""Work that may wait: much of it holds an open file, and there may be few of these."""


class Writeback:
    """A queue of work and the thread that does it.

    `start` starts the thread, since the process may fork before.  The thread is no daemon: a process
    that ends first finishes all work.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def later(self, work: Work) -> None:
        """Do *work* in the thread, after what was asked for before, or now if much waits.  Any thread may ask."""
        if self._queue.qsize() < _MOST:
            self._queue.put(work)
        else:
            _do(work)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="writeback")
        self._thread.start()

    def finish(self) -> None:
        """Return once all work is done; nothing may be asked for any more."""
        self._queue.put(None)
        if self._thread is None:
            self._run()
        else:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            _do(work)


def _do(work: Work) -> None:
    try:
        work()
    except Exception:
        log.exception("a bug: a file that could be cached is not")
