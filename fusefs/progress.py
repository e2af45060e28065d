"""How long work tells that it goes on; what that looks like is the command line's business."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Is told how many more bytes are done."""


class Progress(Protocol):
    """Shows that work goes on."""

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Show that *what* is going on, for as long as the block takes."""

    def transfer(self, what: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show how many bytes have passed of about *total*, None when nobody knows."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:  # noqa: ARG002 - the protocol's name
        """Show nothing."""
        yield

    @contextmanager
    def transfer(self, what: str, total: int | None) -> Iterator[Advance]:  # noqa: ARG002
        """Show nothing."""
        yield lambda count: None  # noqa: ARG005
