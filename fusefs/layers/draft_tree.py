"""The tree of a layer in memory, while its members come: names, and for each what its record will say.

A file is the second part of its record, packed; nothing else is kept of it but its name.
"""

from fusefs.layers.record import MAX_NAME, MAX_TARGET, WHITEOUT
from fusefs.tar.header import Kind

_NO_NAMES = frozenset({WHITEOUT, WHITEOUT + b".", WHITEOUT + b".."})
"""Whiteouts of what is no name."""
_BAD_NAMES = _NO_NAMES | {b".."}
ODD_NAMES = _BAD_NAMES | {b"", b"."}
_ROOTLIKE = frozenset({b"", b"/", b"."})
"""Ends of a path to the root."""
_UNLISTED, _UNLISTED_EACH = 1 << 16, 16
"""Directories that nothing lists: so many at most, and so many more for each path that makes one.

Of two bytes of a path, as in ``a/a/a``, a directory of 300 bytes is made.
"""
_FOLDERS = 4096
"""Directories that are kept by their paths, if these are no longer than the kernel's."""


class Skipped(ValueError):
    """A member that cannot be shown; the message says why."""


class TooMany(ValueError):
    """The tree would be out of proportion to its members; the message says which bound that is."""


class Folder:
    """A directory."""

    __slots__ = ("about", "entries")

    def __init__(self, about: bytes) -> None:
        self.about = about
        """The second part of its record."""
        self.entries: dict[bytes, bytes | Folder | Linked] = {}


class Linked:
    """A file with several names, or a hard link into a lower layer."""

    __slots__ = ("about", "lower", "names", "record")

    def __init__(self, about: bytes, *, lower: bool) -> None:
        self.about = about
        self.lower = lower
        self.names = 0
        """How many it has in the end."""
        self.record = 0
        """The first of these."""


Found = bytes | Folder | Linked


class DraftTree:
    """Directories and what is in them.  Of one thread."""

    def __init__(self, implicit: bytes) -> None:
        """Begin with a root that nothing lists; *implicit* is what the record of such a directory says."""
        self.root = Folder(implicit)
        self.folders: dict[bytes, Folder] = {}
        """Some directories by their paths, however these are written, until a directory is replaced."""
        self._implicit = implicit
        self._unlisted: list[Folder] = []
        """Directories that nothing listed when they were made."""
        self._room = _UNLISTED
        """How many more there may be."""

    def add_directory(self, name: bytes, about: bytes) -> None:
        """Make a directory, or give one that is there other attributes."""
        path = name.removesuffix(b"/")
        if path[-1:] in _ROOTLIKE and not parts_of(path):
            self.root.about = about
            return
        folder, base = self.place(path)
        there = folder.entries.get(base)
        if isinstance(there, Folder):
            there.about = about
        else:
            there = folder.entries[base] = Folder(about)
            self._remember(path, there)

    def add_file(self, name: bytes, found: bytes | Linked) -> None:
        """Put in a file, in the place of what has that name."""
        folder, base = self.place(name)
        if base in folder.entries:
            self.replace(folder.entries[base])
        folder.entries[base] = found

    def replace(self, there: Found) -> None:
        """Note that something has come into the place of what was *there*."""
        if isinstance(there, Folder):
            self.folders.clear()  # a directory goes, with what is below it

    def place(self, name: bytes) -> tuple[Folder, bytes]:
        """Return the directory that a file lies in, which is made where there is none, and its name in it."""
        path, _, base = name.rpartition(b"/")
        if base in ODD_NAMES or len(base) > MAX_NAME:
            parts = parts_of(name)
            check_not_root(parts, Kind.REGULAR)
            return self._walk(parts[:-1]), parts[-1]
        folder = self.folders.get(path)
        if folder is None:
            folder = self._walk(parts_of(path))
            self._remember(path, folder)
        return folder, base

    def find(self, parts: list[bytes]) -> Folder | None:
        """Return a directory, None if there is none."""
        folder = self.root
        for part in parts:
            below = folder.entries.get(part)
            if not isinstance(below, Folder):
                return None
            folder = below
        return folder

    def mark_whiteouts_only(self, about: bytes) -> None:
        """Let the records of directories that nothing lists, with nothing but whiteouts below, say *about*."""
        for folder in reversed(self._unlisted):  # what lies below another was made after it
            if folder.about is self._implicit and all(
                name.startswith(WHITEOUT) or (isinstance(found, Folder) and found.about is about)
                for name, found in folder.entries.items()
            ):
                folder.about = about

    def count_names(self) -> None:
        """Count the names of what has several."""
        queue = [self.root]
        while queue:
            for found in queue.pop().entries.values():
                if isinstance(found, Linked):
                    found.names += 1
                elif isinstance(found, Folder):
                    queue.append(found)

    def _walk(self, parts: list[bytes]) -> Folder:
        """Return a directory; it and those above it are made where there are none, TooMany if that is no end."""
        folder = self.root
        self._room += _UNLISTED_EACH
        for part in parts:
            below = folder.entries.get(part)
            if not isinstance(below, Folder):
                if len(self._unlisted) >= self._room:
                    raise TooMany(f"paths lead through more than {_UNLISTED:,} directories that no member is")
                below = folder.entries[part] = Folder(self._implicit)
                self._unlisted.append(below)
            folder = below
        return folder

    def _remember(self, path: bytes, folder: Folder) -> None:
        if len(self.folders) >= _FOLDERS:
            self.folders.clear()
        if len(path) <= MAX_TARGET:
            self.folders[path] = folder


def parts_of(path: bytes) -> list[bytes]:
    """Return the components of *path*; Skipped if one of them would spoil a listing or lead out."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if _BAD_NAMES.isdisjoint(parts) and len(path) <= MAX_NAME and b"\0" not in path:
        return parts
    for part in parts:
        if part == b"..":
            msg = "a '..' in the name"
        elif len(part.removeprefix(WHITEOUT)) > MAX_NAME:  # a whiteout of a long name is longer than a name can be
            msg = f"a name of {len(part)} bytes"
        elif b"\0" in part:
            msg = "NUL in the name"
        elif part in _NO_NAMES:
            msg = "a whiteout of nothing"
        else:
            continue
        raise Skipped(msg)
    return parts


def check_not_root(parts: list[bytes], kind: Kind) -> None:
    """Raise Skipped if a file's path has no *parts*."""
    if not parts:
        raise Skipped(f"a {kind.value} in the place of the root")
