"""Log handlers: stderr in the foreground, and the log of a mount, which always exists."""

import io
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from fusefs.errors import NoSpace
from fusefs.text import printable

_SYSLOG = "/dev/log"
_STATE_OF_ROOT = "/var/log/imgfs"


class _OneLine(logging.Formatter):
    """Formats a record as one line on stderr: ``imgfs: warning: …``."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"imgfs: {level}{super().format(record)}"


class _LogFile(logging.FileHandler):
    """A log file that only its owner may read."""

    def _open(self) -> io.TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def stderr_handler(level: int) -> logging.Handler:
    """Return a handler that writes records of *level* and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    handler.setLevel(level)
    return handler


def open_log(path: str | None, environment: Mapping[str, str]) -> logging.Handler:
    """Return the handler for a mount's log; its `name` is the file's path, or ``syslog``.

    The log is *path* if given, otherwise syslog if it can be reached, otherwise ``imgfs.log`` in
    ``$XDG_STATE_HOME/imgfs`` (root: /var/log/imgfs).  Raises NoSpace if it cannot be written.
    """
    if path is None and _can_connect(_SYSLOG):
        from logging.handlers import SysLogHandler  # noqa: PLC0415 - imports many modules that a log file does not need

        handler: logging.Handler = SysLogHandler(_SYSLOG, facility=SysLogHandler.LOG_DAEMON)
        handler.setFormatter(logging.Formatter("imgfs[%(process)d]: %(levelname)s: %(message)s"))
        handler.name = "syslog"
        return handler
    file = Path(path) if path else _state_folder(environment) / "imgfs.log"
    try:
        if path is None:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _LogFile(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise NoSpace(
            f"cannot write the log {printable(str(file))}: {error.strerror}; choose another file with --log-file"
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s imgfs[%(process)d]: %(levelname)s: %(message)s"))
    handler.name = printable(str(file))
    return handler


def _state_folder(environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path(_STATE_OF_ROOT)
    state = environment.get("XDG_STATE_HOME")
    return (Path(state) if state else Path(environment.get("HOME") or "/") / ".local" / "state") / "imgfs"


def _can_connect(path: str) -> bool:
    """Return whether a syslog daemon listens at *path*; Python's handler does not report that none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
