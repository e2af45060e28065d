"""Log handlers: stderr in the foreground, and the log of a mount, which always exists."""

import errno
import io
import logging
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress

from fusefs.errors import NoSpace
from fusefs.home import home, owns_system
from fusefs.log import begin_to_log
from fusefs.private import make_parents
from fusefs.text import printable

log = logging.getLogger(__name__)

_SYSLOG = "/dev/log"
_STATE_OF_ROOT = "/var/log/imgfs"
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Links that are no files of their own: they name a descriptor of this process, which may be a pipe or a socket."""
_NO_FILE = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: "it is not a regular file"}
"""Errors of opening a file for logs, in plain words."""


class _OneLine(logging.Formatter):
    """Formats a record as one line on stderr: ``imgfs: warning: …``."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"imgfs: {level}{super().format(record)}"


class _LogFile(logging.FileHandler):
    """A log file that only its owner may read if it is new."""

    is_new = False

    def _open(self) -> io.TextIOWrapper:
        before = os.path.lexists(self.baseFilename)
        file = open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_opened)  # noqa: SIM115
        self.is_new = not before
        return file


def is_new(log: logging.Handler) -> bool:
    """Return whether the *log* is a file that did not exist before."""
    return isinstance(log, _LogFile) and log.is_new


def _opened(path: str, flags: int) -> int:
    """Open the log file *path*; OSError for a symbolic link, a pipe or a socket.  A new file has mode 0600.

    ``/dev/stdout`` and ``/dev/stderr`` are those of this process.
    """
    if path in _STREAMS:
        return os.dup(_STREAMS[path])
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # do not wait for the reader of a pipe
    try:
        try:
            descriptor = os.open(path, flags | os.O_EXCL, 0o600)
        except FileExistsError:
            descriptor = os.open(path, flags, 0o600)
        else:
            with suppress(OSError):  # a file system without modes
                os.fchmod(descriptor, 0o600)  # the umask may have removed bits
    except OSError as error:
        if error.errno in _NO_FILE:
            raise OSError(error.errno, _NO_FILE[error.errno]) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):  # such as /dev/null
        os.close(descriptor)
        raise OSError(errno.EINVAL, _NO_FILE[errno.ENXIO])
    os.set_blocking(descriptor, True)
    return descriptor


def stderr_handler(level: int) -> logging.Handler:
    """Return a handler that writes records of *level* and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    handler.setLevel(level)
    return handler


def open_log(path: str | None, environment: Mapping[str, str]) -> logging.Handler:
    """Return the handler for a mount's log; its `name` is the file's path, or ``syslog``.

    The log is *path* if given, otherwise syslog if it can be reached, otherwise ``imgfs.log`` in
    ``$XDG_STATE_HOME/imgfs`` (root: /var/log/imgfs).  Raises NoSpace if *path* cannot be written.  If the default
    cannot be, that is a warning, and the handler has no name and discards all records.
    """
    begin_to_log()
    if path is None and _can_connect(_SYSLOG):
        from logging.handlers import SysLogHandler  # noqa: PLC0415 - imports many modules that a log file does not need

        handler: logging.Handler = SysLogHandler(_SYSLOG, facility=SysLogHandler.LOG_DAEMON)
        handler.setFormatter(logging.Formatter("imgfs[%(process)d]: %(levelname)s: %(message)s"))
        handler.name = "syslog"
        return handler
    file = path or f"{_state_folder(environment)}/imgfs.log"
    try:
        if path is None:
            make_parents(file)
            _check_folder(os.path.dirname(file))
        handler = _LogFile(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        why = f"cannot write the log {printable(file)}: {error.strerror}; choose another file with --log-file"
        if path is not None:
            raise NoSpace(why) from None
        log.warning("continuing without a log: %s", why)
        return logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s imgfs[%(process)d]: %(levelname)s: %(message)s"))
    handler.name = printable(file)
    return handler


def _state_folder(environment: Mapping[str, str]) -> str:
    if owns_system():
        return _STATE_OF_ROOT
    state = environment.get("XDG_STATE_HOME") or os.path.join(home(environment), ".local", "state")
    return os.path.join(state, "imgfs")


def _check_folder(path: str) -> None:
    """Raise PermissionError if others may put files into the directory at *path*."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "its directory is a symbolic link, or others may write there")


def _can_connect(path: str) -> bool:
    """Return whether a syslog daemon listens at *path*; Python's handler does not report that none does."""
    if not os.path.lexists(path):
        return False
    import socket  # noqa: PLC0415 - many machines have no syslog

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
