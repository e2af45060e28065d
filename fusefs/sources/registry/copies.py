"""Bytes of a blob that are in the cache, in the files of other mounts: they are not asked for once more."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fusefs.cache.entry import BLOB, CacheEntry
from fusefs.cache.part import Notes, open_noted, part_names, read_notes
from fusefs.content.protocol import Bytes
from fusefs.ranges import Ranges

_STEP = 1 << 20
"""Bytes that are copied at once."""


class _Source(NamedTuple):
    """A file, and what to copy from it."""

    descriptor: int
    useful: Ranges


class Copies:
    """The files of an entry but one's own, and the whole blob, once it is there.  Nothing in them is verified here.

    Safe under concurrency: `_lock` guards `_notes`.
    """

    def __init__(self, entry: Callable[[], CacheEntry | None], own: int) -> None:
        """*entry* returns the entry; *own* is the descriptor of one's own file in it."""
        self._entry = entry
        self._own = os.fstat(own).st_ino
        self._notes: dict[str, Notes | None] = {}
        self._lock = threading.Lock()

    def of(self, wanted: Ranges) -> Iterator[tuple[int, Bytes]]:
        """Yield those of the *wanted* bytes that are there, with their offsets, each once.  Raises OSError."""
        entry = self._entry()
        if entry is None:
            return
        sources: list[_Source] = []
        try:
            with self._lock:
                self._find(entry, Ranges(wanted), sources)
            for descriptor, useful in sources:
                for start, end in useful:
                    while start < end and (data := os.pread(descriptor, min(_STEP, end - start), start)):
                        yield start, data
                        start += len(data)  # noqa: PLW2901 - what follows
        finally:
            for descriptor, _ in sources:
                os.close(descriptor)

    def _find(self, entry: CacheEntry, wanted: Ranges, found: list[_Source]) -> None:
        blob = entry.open_cached(BLOB)
        if blob is not None:
            found.append(_Source(blob, wanted))
            return
        for name in part_names(entry.directory):
            notes = self._notes[name] = read_notes(entry.directory, name, self._notes.get(name))
            if notes is None or notes.inode == self._own:
                continue
            useful = Ranges(each for start, end in wanted for each in notes.ranges.within(start, end))
            descriptor = open_noted(entry.directory, name, notes.inode) if useful else None
            if descriptor is not None:
                found.append(_Source(descriptor, useful))
                for start, end in useful:
                    wanted.remove(start, end)
