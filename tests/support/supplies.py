"""A supply of a remote blob's bytes that is in this process: it counts what it is asked for, and may fail."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable

from fusefs.content.file import OpenFile
from fusefs.content.pieces import Room, Take
from fusefs.content.protocol import Bytes
from fusefs.errors import DigestMismatch, ImgfsError
from fusefs.ranges import Range


def memory_file(data: bytes = b"") -> OpenFile:
    """Return a file in memory with *data*."""
    descriptor = os.memfd_create("blob", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return OpenFile(descriptor, "blob")


class MemorySupply:
    """The bytes *data*, sent in *step* bytes at a time."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self.data = data
        """What is sent, which a test may change."""
        self.mended: bytes | None = None
        """What is sent from the second time on; None: the same."""
        self.not_sent: ImgfsError | None = None
        """Why what is asked for again is not sent at first hand: by others instead, or not at all."""
        self.step = step
        self.asked: list[Range] = []
        self.again: list[int] = []
        self.kept: list[OpenFile] = []
        self.ignores_ranges = False
        self.cached_room: int | None = None
        """Bytes that may be cached; None: no limit."""
        self.outside = 0
        """How many files it gave outside of the cache."""
        self.before: Callable[[int, int], object] = lambda _start, _end: None
        """Called before the bytes from one offset up to another are sent."""
        self.busy: Callable[[], bool] = lambda: False
        """Whether somebody waits for bytes of the same image."""
        self._digest = hashlib.sha256(data).digest()
        self._lock = threading.Lock()

    def stored(self) -> OpenFile | None:
        """Return None: nothing is stored."""
        return None

    def awaited(self) -> OpenFile | None:
        """Return None: no other process receives the bytes."""
        return None

    def room(self, *, cached: bool) -> Room | None:
        """Return a file in memory."""
        file = memory_file()
        if not cached:
            self.outside += 1
            return Room(file, "elsewhere")
        return Room(file, "the cache", self.cached_room, keep=lambda: self.kept.append(file))

    def receive(self, start: int, end: int, take: Take, *, again: int) -> ImgfsError | None:
        """Send the bytes."""
        with self._lock:
            self.asked.append((start, end))
            self.again.append(again)
            if again and self.mended is not None:
                self.data = self.mended
        if again > 1 and self.not_sent is not None:
            raise self.not_sent
        if self.ignores_ranges:
            start, end = 0, len(self.data)
        for offset in range(start, end, self.step):
            last = min(offset + self.step, end)
            self.before(offset, last)
            take(offset, self.data[offset:last])
        return self.not_sent if again == 1 else None

    def check(self) -> None:
        """Raise nothing: it may be asked."""

    def is_busy(self) -> bool:
        """Return whether the test says so."""
        return self.busy()

    def verify(self, data: Iterable[Bytes]) -> None:
        """Compare the digest with that of the first data."""
        hasher = hashlib.sha256()
        for piece in data:
            hasher.update(piece)
        if hasher.digest() != self._digest:
            raise DigestMismatch("the digest is wrong")
