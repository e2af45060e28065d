"""Sizes by directory, with no more than so many files: small ones are summed up for each directory."""

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

_DEEPEST = 40
"""Directories on a path; what is deeper counts for the last of them."""


class Entry(NamedTuple):
    """A directory, or a file."""

    parent: int
    """The position of the directory that has it, -1 for the root."""
    name: bytes
    size: int
    files: int
    kind: Hashable
    """What most of its bytes are."""
    is_directory: bool
    rest: tuple[int, int]
    """Bytes and number of the files in a directory that have no entry."""


class Folder:
    """A directory that is being filled."""

    __slots__ = ("files", "folders", "kinds", "rest_files", "rest_size")

    def __init__(self) -> None:
        self.folders: dict[bytes, Folder] = {}
        self.files: list[tuple[int, bytes, Hashable]] = []
        """Size, name and kind."""
        self.rest_size = self.rest_files = 0
        self.kinds: Counter[Hashable] = Counter()
        """Bytes of the files without an entry, by kind."""


class SizeTree:
    """Collects files, directory by directory."""

    def __init__(self, most: int) -> None:
        """Have entries for the *most* largest files."""
        self._most = most
        self._root = self._filled = Folder()
        """The root, and the directory that `folder` returned last."""
        self._count, self._limit = 0, 2 * most
        """Files and directories there are, and how many there may be."""

    def folder(self, path: Sequence[bytes]) -> Folder:
        """Return the directory *path*, to add files; until the next call of this function."""
        self._check()
        folder = self._root
        for name in path[:_DEEPEST]:
            if name not in folder.folders:
                folder.folders[name] = Folder()
                self._count += 1
            folder = folder.folders[name]
        self._filled = folder
        return folder

    def add(self, folder: Folder, name: bytes, size: int, kind: Hashable) -> None:
        """Add a file."""
        folder.files.append((size, name, kind))
        self._count += 1
        if self._count > 2 * self._limit:  # in one directory alone
            self._check()

    def _check(self) -> None:
        if self._count > self._limit:
            self._prune(self._most)
            self._limit = 2 * max(self._count, self._most)  # twice: the work is in proportion to the files

    def entries(self) -> list[Entry]:
        """Return the entries, each directory before what is in it, and the largest first in it.  Add no more files."""
        self._filled = self._root
        most = self._most
        self._prune(most)
        while self._count > 2 * self._most:  # many directories
            most //= 2
            self._prune(most)
        found: list[Entry] = []
        totals = self._totals()
        waiting = [(-1, b"", self._root)]
        while waiting:
            parent, name, folder = waiting.pop()
            size, files, kinds = totals[id(folder)]
            here = len(found)
            kind = kinds.most_common(1)[0][0] if kinds else None
            rest = folder.rest_size, folder.rest_files
            found.append(Entry(parent, name, size, files, kind, is_directory=True, rest=rest))
            found.extend(
                Entry(here, name, size, 1, kind, is_directory=False, rest=(0, 0))
                for size, name, kind in sorted(folder.files, key=lambda file: -file[0])
            )
            waiting.extend((here, name, below) for name, below in folder.folders.items())
        return found

    def _prune(self, most: int) -> None:
        """Leave the *most* largest files; sum up the others, and directories in which there is none of them.

        The directory that is being filled stays.
        """
        sizes = heapq.nlargest(most + 1, (size for folder in self._folders() for size, _, _ in folder.files))
        if len(sizes) > most:
            limit = sizes.pop()
            equal = sizes.count(limit)
            """How many files of just this size still have an entry."""
            for folder in self._folders():
                kept = []
                for file in folder.files:
                    size, _, kind = file
                    if size > limit or (size == limit and equal):
                        equal -= size == limit
                        kept.append(file)
                    else:
                        self._sum_up(folder, size, 1, Counter({kind: size}))
                folder.files = kept
        for folder in reversed([*self._folders()]):  # from below
            for name, below in list(folder.folders.items()):
                if not below.files and not below.folders and below is not self._filled:
                    self._sum_up(folder, below.rest_size, below.rest_files, below.kinds)
                    del folder.folders[name]
        self._count = sum(len(folder.files) + 1 for folder in self._folders())

    @staticmethod
    def _sum_up(folder: Folder, size: int, files: int, kinds: Counter[Hashable]) -> None:
        folder.rest_size += size
        folder.rest_files += files
        folder.kinds.update(kinds)

    def _folders(self) -> Iterator[Folder]:
        """Yield all directories, each before those in it."""
        waiting = [self._root]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting.extend(folder.folders.values())

    def _totals(self) -> dict[int, tuple[int, int, Counter[Hashable]]]:
        """Return the bytes, the number and the kinds of all files in each directory, by its identity."""
        totals: dict[int, tuple[int, int, Counter[Hashable]]] = {}
        for folder in reversed([*self._folders()]):
            kinds = Counter(folder.kinds)
            size, files = folder.rest_size, folder.rest_files
            for file, _, kind in folder.files:
                kinds[kind] += file
                size += file
                files += 1
            for below in folder.folders.values():
                more, number, others = totals[id(below)]
                size += more
                files += number
                kinds.update(others)
            totals[id(folder)] = size, files, kinds
        return totals
