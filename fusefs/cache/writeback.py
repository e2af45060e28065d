"""Background writes (fsync, cache files), run by one thread and drained at exit."""

import queue
import threading
from collections.abc import Callable

from fusefs.log import logger

log = logger(__name__)

Work = Callable[[], None]

_MOST = 32
"""Limit of the queue: much of the work holds an open file, and a process may have few of these."""


class Writeback:
    """A queue of work and the thread that does it.

    `start` starts the thread, since the process may fork before.  The thread is not a daemon: the process
    finishes all work before it ends.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def later(self, work: Work) -> None:
        """Do *work* in the thread, in order, or at once if the queue is full.  Any thread may call."""
        if self._queue.qsize() < _MOST:
            self._queue.put(work)
        else:
            _do(work)

    @property
    def idle(self) -> bool:
        """Whether no work waits to be done."""
        return self._queue.empty()

    def start(self) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._run, name="writeback")
        thread.start()
        self._thread = thread

    def finish(self) -> None:
        """Wait until all work is done; no work may follow."""
        self._queue.put(None)
        if self._thread is None:
            self._run()
        else:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            _do(work)
            del work  # it refers to an image, which may be let go before there is more to do


def _do(work: Work) -> None:
    try:
        work()
    except Exception:
        log.exception("a bug: background work of the cache failed")
