"""Where the bytes of a file come from."""

from collections.abc import Iterator
from typing import Protocol

Bytes = bytes | bytearray
Buffer = Bytes | memoryview

_CHUNK = 1 << 20


class Content(Protocol):
    """The bytes of one file: a fixed size, readable at any offset from any thread.

    Both reads return exactly ``min(size, self.size - offset)`` bytes or raise OSError: a short
    reply is a truncated file to the kernel, for good.
    """

    @property
    def size(self) -> int:
        """The number of bytes."""

    @property
    def stored(self) -> int:
        """How many of them are stored; the others are the zeros of holes."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes from *offset* on; may wait for a disk."""

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the same without waiting, or None when that is not possible right now.

        What is returned may lie in *buffer*, and then changes when that is used again: to get and clear
        new memory for every read takes a third of the time of a large one.
        """

    def check(self) -> None:
        """Raise Unavailable if the bytes are known to be gone; does not wait."""


class Literal:
    """Bytes that are held in memory."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.data)

    @property
    def stored(self) -> int:
        """All bytes are stored."""
        return len(self.data)

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes."""
        return self.data[offset : offset + size]

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Bytes:  # noqa: ARG002
        """Return the bytes."""
        return self.data[offset : offset + size]

    def check(self) -> None:
        """Nothing can happen to memory."""


def chunks(content: Content) -> Iterator[Bytes]:
    """Yield all of *content* in order, a MiB at a time."""
    for offset in range(0, content.size, _CHUNK):
        yield content.read_at(offset, _CHUNK)
