"""Environment variables and limits of the caller that would change how Python itself runs."""

import _thread  # threading.stack_size is its function, and most commands start no thread
import os
import resource
import sys
from contextlib import suppress

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_HARMLESS = frozenset({"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONWARNINGS"})
"""Variables that are often set, in containers and by developers, and change nothing that imgfs needs."""
_M_ARENA_MAX = -8
"""A parameter of mallopt(3)."""
_STACK = 2 << 20
"""Bytes of a thread's stack: glibc's default without a limit.  The caller's limit may be far too small (ulimit -s)."""


def ignore_python_variables() -> None:
    """Replace this process by one that ignores ``PYTHONINSPECT``, ``PYTHONVERBOSE`` and the like, if one is set.

    Two decide where imgfs is found, and stay valid then: ``PYTHONPATH`` and ``PYTHONHOME``.  Only an interpreter
    that starts with ``-I``, as after scripts/install, ignores those.
    """
    names = {name for name in os.environ if name.startswith("PYTHON")} - _HARMLESS
    if sys.flags.ignore_environment or not names or "PYTHONHOME" in names or not os.path.isfile(sys.argv[0]):
        return
    paths = (*os.environ.get("PYTHONPATH", "").split(os.pathsep), os.environ.get("PYTHONUSERBASE", ""))
    if any(path and os.path.commonpath((os.path.abspath(path), _PACKAGES)) == os.path.abspath(path) for path in paths):
        return
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-E", "-P", *sys.argv])  # noqa: S606 - no shell is wanted


def save_memory() -> None:
    """Let threads take little address space: there may be a limit (ulimit -v)."""
    _thread.stack_size(_STACK)
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        import ctypes  # noqa: PLC0415 - only few processes need it

        with suppress(AttributeError):  # a C library without arenas
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)  # a heap for each thread reserves 64 MiB


def may_end_at_once() -> bool:
    """Return whether all other threads of Python are daemons, which its own end would stop, too, but not safely.

    It may unload OpenSSL while a thread works with it.
    """
    threading = sys.modules.get("threading")
    if threading is None:
        return True
    return all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
