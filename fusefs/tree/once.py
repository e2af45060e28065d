"""A value computed on first use, at most once, shared between threads."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fusefs.errors import ImgfsError, NoSpace

T = TypeVar("T")


class Once(Generic[T]):
    """A value that the first call of `get` makes while other threads wait.

    `_lock` guards `_value` and `_failed`.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Make the value with *make*, at most once if that succeeds."""
        self._make = make
        self._value: tuple[T] | None = None
        self._failed: ImgfsError | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value; raises the exception of *make* if that fails.

        Errors of the image (ImgfsError) are final: each later call raises them again.  After NoSpace or an
        OSError the next call makes the value again.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed.with_traceback(None)  # otherwise the traceback grows with each call
            if self._value is None:
                try:
                    self._value = (self._make(),)
                except NoSpace:
                    raise
                except ImgfsError as error:
                    self._failed = error
                    raise
            return self._value[0]
