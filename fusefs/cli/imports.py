"""Imports that are made only when they are needed: FUSE alone takes 0.2 s.

The garbage collector pauses meanwhile.  No import creates garbage, and the search for some takes a tenth of the time.
"""

import gc
import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading


def import_command(name: str) -> ModuleType:
    """Import the module of a command."""
    _pause_collector()
    try:
        return importlib.import_module(f"fusefs.cli.commands.{name}")
    finally:
        _resume_collector()


class BackgroundImport:
    """Modules that a thread imports while this process waits for something else.

    No exception of a signal may end an import of the waiting thread meanwhile: that could leave the lock of all imports
    taken, and `finish` would wait for ever.
    """

    def __init__(self, name: str, *more: str) -> None:
        """Import the module *name* on `begin`, and *more* of them as long as nobody waits for the end."""
        self._names = name, *more
        self._is_awaited = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread, unless it was started already."""
        if self._thread is None:
            _pause_collector()
            self._thread = _import_in_thread(self._remaining())
            if self._thread is None:
                _resume_collector()

    def finish(self) -> None:
        """Wait for the thread, if it was started; the process may fork afterwards."""
        self._is_awaited = True
        if self._thread is not None:
            self._thread.join()
            _resume_collector()

    def _remaining(self) -> Iterator[str]:
        first, *more = self._names
        yield first
        for name in more:
            if self._is_awaited:
                break
            yield name


def import_in_thread(name: str) -> None:
    """Import the module *name* in a thread; without one, or if that fails, its first user imports it."""
    _import_in_thread([name])


def _import_in_thread(names: Iterable[str]) -> "threading.Thread | None":
    import threading  # noqa: PLC0415 - few commands wait for something

    def work() -> None:
        with suppress(Exception):
            for name in names:
                importlib.import_module(name)

    thread = threading.Thread(target=work, name="import", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # as many as this process may have
        return None
    return thread


def _pause_collector() -> None:
    gc.disable()


def _resume_collector() -> None:
    gc.freeze()  # modules stay until the process ends, so no later collection has to look at them
    gc.enable()


_pause_collector()  # this module is one of the first; `import_command` imports the last
