"""A value computed on first use, at most once, shared between threads."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fusefs.errors import ImgfsError, NoSpace

T = TypeVar("T")


class Once(Generic[T]):
    """A value that the first call of `get` makes while other threads wait.

    `_lock` guards all attributes; who waits for it finds more `_failures` than before.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Make the value with *make*, at most once if that succeeds."""
        self._make = make
        self._value: tuple[T] | None = None
        self._failed: ImgfsError | None = None
        self._passing: Exception | None = None
        self._failures = 0
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value; raises the exception of *make* if that fails.

        Errors of the image (ImgfsError) are final: each later call raises them again.  NoSpace and OSError are shared
        by the calls that waited; the next one makes the value again.
        """
        failures = self._failures
        with self._lock:
            if self._failed is not None:
                raise self._failed.with_traceback(None)  # otherwise the traceback grows with each call
            if self._value is None and self._passing is not None and self._failures != failures:
                raise self._passing.with_traceback(None)
            if self._value is None:
                self._passing = None
                try:
                    self._value = (self._make(),)
                except (NoSpace, OSError) as error:
                    self._passing = error
                    self._failures += 1
                    raise
                except ImgfsError as error:
                    self._failed = error
                    raise
            return self._value[0]
