"""Bytes of a blob that other mounts have already: they are copied from the cache, not asked for once more."""

import os
from collections.abc import Iterator

from fusefs.cache.entry import CacheEntry
from fusefs.cache.part import ReadPart, open_part, part_names, read_part
from fusefs.content.protocol import Bytes
from fusefs.content.ranges import Ranges

BLOB = "blob"
"""The name of a whole blob in its entry."""
_STEP = 1 << 20
"""Bytes that are copied at once."""


class Copies:
    """The files of an entry that others own, and the whole blob, once it is there.

    Nothing in them is verified here.  Safe under concurrency: two threads may read the same document, no more.
    """

    def __init__(self, entry: CacheEntry, own: int) -> None:
        """*own* is the descriptor of one's own file in *entry*."""
        self._entry = entry
        self._own = os.fstat(own).st_ino
        self._read: dict[str, ReadPart | None] = {}

    def of(self, wanted: Ranges) -> Iterator[tuple[int, Bytes]]:
        """Yield those of the *wanted* bytes that are there, with their offsets, each once.  Raises OSError."""
        wanted = Ranges(wanted)
        blob = self._entry.open_cached(BLOB)
        if blob is not None:
            yield from _taken(blob, wanted, Ranges(wanted))
        directory = self._entry.directory
        for name in part_names(directory):
            part = self._read[name] = read_part(directory, name, self._read.get(name))
            if part is None or part.facts.get("inode") == self._own:
                continue
            there = Ranges(part.facts.get("ranges", ()))
            useful = Ranges(each for start, end in wanted for each in there.within(start, end))
            file = open_part(directory, name, part.facts) if useful else None
            if file is not None:
                yield from _taken(file, wanted, useful)


def _taken(file: int, wanted: Ranges, useful: Ranges) -> Iterator[tuple[int, Bytes]]:
    """Yield the *useful* bytes of *file*, unless it ends before, take them out of *wanted*, and close the file."""
    try:
        for start, end in useful:
            while start < end and (data := os.pread(file, min(_STEP, end - start), start)):
                wanted.remove(start, start + len(data))
                yield start, data
                start += len(data)  # noqa: PLW2901 - what follows
    finally:
        os.close(file)
