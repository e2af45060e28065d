"""The loggers of imgfs.  Most runs have nothing to log, and `logging` is slow to import: the first message does it."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import logging

_first = threading.RLock()
"""Guards `_waiting`.  A function in there may log."""
_waiting: list[Callable[[], None]] = []


_warnings = ["warning", "error", "exception"]
"""Methods of a logger that say what a user should see."""
_warned = threading.Event()


class _Logger:
    """Stands for the logger of a name, and asks it for everything."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import logging  # noqa: PLC0415 - see above

        if attribute in _warnings:
            _warned.set()
        begin_to_log()
        return getattr(logging.getLogger(self._name), attribute)


def has_warned() -> bool:
    """Return whether this process has logged a warning or an error."""
    return _warned.is_set()


def logger(name: str) -> "logging.Logger":
    """Return the logger of a module."""
    return cast("logging.Logger", _Logger(name))


def before_first_message(configure: Callable[[], None]) -> None:
    """Call *configure* before a logger of imgfs writes its first message, or at `begin_to_log`."""
    _waiting.append(configure)


def begin_to_log() -> None:
    """Configure logging now: other code than that of imgfs may log, or handlers may be added."""
    with _first:
        while _waiting:
            _waiting.pop(0)()
