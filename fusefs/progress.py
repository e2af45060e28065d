"""Interfaces to report the progress of long work.  The command line decides how to show it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


class Progress(Protocol):
    """Receives reports of progress."""

    def waiting_began(self) -> None:
        """Report that this thread is about to wait for an engine, a disk or a pipe: other work may begin now.

        May be called any number of times, or never.
        """

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Show the message *what* until the block ends."""

    def transfer(self, what: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show how many bytes are done; *total* is their approximate number, None if it is unknown."""


class Silent:
    """Shows nothing."""

    def waiting_began(self) -> None:
        """Do nothing."""

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:  # noqa: ARG002 - the protocol's name
        """Show nothing."""
        yield

    @contextmanager
    def transfer(self, what: str, total: int | None) -> Iterator[Advance]:  # noqa: ARG002
        """Show nothing."""
        yield lambda count: None  # noqa: ARG005


class Observed:  # not a dataclass: those load slowly, and every command imports this module
    """Passes reports on, and calls a function whenever a wait begins."""

    def __init__(self, shown: Progress, began: Callable[[], None]) -> None:
        """Pass reports on to *shown*; call *began* when a wait begins."""
        self._shown = shown
        self._began = began

    def waiting_began(self) -> None:
        """Call *began*."""
        self._began()

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Show *what*."""
        return self._shown.waiting(what)

    def transfer(self, what: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show how many bytes have passed."""
        return self._shown.transfer(what, total)
