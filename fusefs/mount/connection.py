"""The kernel's switches for a FUSE connection (fuse.rst, "FUSE control filesystem")."""

import ctypes
import os

_FOLDER = "/sys/fs/fuse/connections"
# The numbers of these calls are the same on all architectures (asm-generic/unistd.h).
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_CREATE = 6

_libc = ctypes.CDLL(None, use_errno=True)


def set_switch(connection: int, name: str, value: int) -> None:
    """Set the switch *name* of a *connection* to *value*; OSError if that is not permitted."""
    try:
        switch = os.open(f"{_FOLDER}/{connection}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # the control file system is not mounted, as in containers
        folder = _open_detached()
        try:
            switch = os.open(f"{connection}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
    try:
        os.write(switch, b"%d\n" % value)
    finally:
        os.close(switch)


def _open_detached() -> int:
    """Return a descriptor of the control file system, mounted detached, for this process alone.  Requires root."""
    context = _syscall(_FSOPEN, b"fusectl", _CLOEXEC)
    try:
        _syscall(_FSCONFIG, context, _CREATE, None, None, 0)
        return _syscall(_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)


def _syscall(*arguments: object) -> int:
    result: int = _libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
