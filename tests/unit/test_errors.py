"""Which exceptions mean that a limit of the process is reached."""

import errno

import pytest

from fusefs.errors import LimitReached, limit_reached


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, "no memory"), "out of memory"),
        (_caused(SystemError("__prepare__ returned a result with an exception set"), MemoryError()), "out of memory"),
        (ImportError("failed to map segment from shared object"), "out of memory"),
        (RuntimeError("can't start new thread"), "cannot start a thread"),
        (OSError(errno.EMFILE, "too many"), "too many open files"),
        (ExceptionGroup("several", [ValueError(), MemoryError()]), "out of memory"),
    ],
)
def test_a_limit_is_reached(error: BaseException, words: str) -> None:
    reached = limit_reached(error)
    assert isinstance(reached, LimitReached)
    assert str(reached).startswith(words)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        SystemError("a fault of C code"),
        _caused(SystemError("another one"), ValueError()),
        _caused(ValueError(), MemoryError()),
        RuntimeError("anything"),
        OSError(errno.EIO, "disk"),
    ],
)
def test_no_limit_is_reached(error: BaseException) -> None:
    assert limit_reached(error) is None
