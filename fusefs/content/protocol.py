"""The protocol for the bytes of a file, and contents in memory or inside other contents."""

import errno
from collections.abc import Iterator
from typing import NamedTuple, Protocol

Bytes = bytes | bytearray
Buffer = Bytes | memoryview

_CHUNK = 1 << 20


class FilePlace(NamedTuple):
    """The position of a content in an open local file."""

    descriptor: int
    offset: int
    """In bytes."""


class Content(Protocol):
    """The bytes of one file: a fixed size, readable at any offset from any thread.

    Both reads return exactly ``min(size, self.size - offset)`` bytes or raise OSError: the kernel takes a
    short reply as the end of the file, and caches it.
    """

    @property
    def size(self) -> int:
        """The number of bytes."""

    @property
    def stored(self) -> int:
        """The number of stored bytes; the others are the zeros of holes."""

    @property
    def identity(self) -> str:
        """Distinguishes contents of one image that have the same digest; part of the names of cached files.

        The same for the same image in every process.
        """

    def slice(self, offset: int, size: int) -> "Content":
        """Return *size* bytes from *offset* on as a content, without reading them.

        A read past the end of this content raises OSError (EIO), or returns the bytes that follow in the same file.
        """

    def file_place(self) -> FilePlace | None:
        """Return the position of the bytes if they are contiguous in a local file, else None."""

    def fetch(self) -> None:
        """Wait until no read waits for a network; OSError if that fails."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return *size* bytes from *offset* on; may wait for a disk."""

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the same bytes without waiting, or None if that is not possible now.

        The result may be a part of *buffer*, valid until the caller reuses it.  The buffer saves the allocation
        of cleared memory, a third of the time of a large read.
        """

    def check(self) -> None:
        """Raise Unavailable if the bytes are known to be gone; does not wait."""

    def close(self) -> None:
        """Close the file or connection behind the bytes; later reads of this content and its slices fail.

        No other thread may read meanwhile.  Closing twice is allowed.
        """


class Literal:
    """Bytes in memory."""

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

    @property
    def identity(self) -> str:
        """Always the same: the digest alone distinguishes the bytes."""
        return "0"

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes; reads past the end raise OSError (EIO)."""
        return Slice(self, offset, size)

    def file_place(self) -> None:
        """Return None: the bytes are in memory."""

    def fetch(self) -> None:
        """Do nothing: the bytes are here."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes."""
        return self.data[offset : offset + size]

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Bytes:  # noqa: ARG002
        """Return the bytes."""
        return self.data[offset : offset + size]

    def check(self) -> None:
        """Do nothing: memory does not change."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class Slice:
    """A run of bytes in another content."""

    __slots__ = ("_content", "_offset", "size")

    def __init__(self, content: Content, offset: int, size: int) -> None:
        self._content = content
        self._offset = offset
        self.size = size

    @property
    def stored(self) -> int:
        """All bytes count as stored."""
        return self.size

    @property
    def identity(self) -> str:
        """The identity of the other content, and the offset in it."""
        return f"{self._content.identity}+{self._offset}"

    def slice(self, offset: int, size: int) -> Content:
        """Return a part of the bytes."""
        return self._content.slice(self._offset + offset, size)

    def file_place(self) -> FilePlace | None:
        """Return the position of the bytes in a local file, None if there is no such file."""
        place = self._content.file_place()
        return None if place is None else FilePlace(place.descriptor, place.offset + self._offset)

    def fetch(self) -> None:
        """Fetch the other content."""
        self._content.fetch()

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes; OSError (EIO) if the other content ends before the slice."""
        size = clipped(self.size, offset, size)
        data = self._content.read_at(self._offset + offset, size) if size else b""
        self._check_length(len(data), size)
        return data

    def read_cached(self, offset: int, size: int, buffer: memoryview | None = None) -> Buffer | None:
        """Return the bytes without waiting, or None; OSError (EIO) if the other content ends before the slice."""
        size = clipped(self.size, offset, size)
        data = self._content.read_cached(self._offset + offset, size, buffer) if size else b""
        if data is not None:
            self._check_length(len(data), size)
        return data

    def _check_length(self, length: int, expected: int) -> None:
        if length < expected:
            raise OSError(errno.EIO, f"the bytes end before offset {self._offset + self.size}")

    def check(self) -> None:
        """Raise Unavailable if the bytes are known to be gone."""
        self._content.check()

    def close(self) -> None:
        """Close the other content."""
        self._content.close()


def clipped(total: int, offset: int, size: int) -> int:
    """Return how many of *size* bytes from *offset* on are inside a file of *total* bytes."""
    return max(0, min(size, total - offset))


def chunks(content: Content) -> Iterator[Bytes]:
    """Yield all of *content* in order, a MiB at a time."""
    for offset in range(0, content.size, _CHUNK):
        yield content.read_at(offset, _CHUNK)
