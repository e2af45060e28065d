"""The tree of a layer in memory while its members come: names, and for each the second part of its record.

A file is that part, packed; no object is held for it besides these bytes and its name.
"""

from fusefs.layers.record import MAX_NAME, MAX_TARGET, WHITEOUT
from fusefs.tar.header import Kind

_NO_NAMES = frozenset({WHITEOUT, WHITEOUT + b".", WHITEOUT + b".."})
"""Whiteouts that name no file."""
_BAD_NAMES = _NO_NAMES | {b".."}
ODD_NAMES = _BAD_NAMES | {b"", b"."}
"""Last components that `DraftTree.place` must look at."""
_ROOTLIKE = frozenset({b"", b"/", b"."})
"""Last bytes of a path that may be the root's."""
_IMPLICIT, _IMPLICIT_EACH = 1 << 16, 16
"""Limit of implicit directories: so many, and so many more for each path that makes one.

Each takes 300 bytes of memory and only two bytes of a path, as in ``a/a/a``.
"""
_FOLDERS = 4096
"""Limit of directories found by their paths at once."""


class Skipped(ValueError):
    """A member that cannot be shown; the message gives the reason."""


class TooMany(ValueError):
    """The tree would be out of proportion to its members; the message names the limit."""


class Folder:
    """A directory."""

    __slots__ = ("children", "packed")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        """The second part of its record."""
        self.children: dict[bytes, bytes | Folder | Linked] = {}


class Linked:
    """A file with several names, or a hard link into a lower layer."""

    __slots__ = ("lower", "names", "number", "packed")

    def __init__(self, packed: bytes, *, lower: bool) -> None:
        self.packed = packed
        self.lower = lower
        self.names = 0
        """How many names there are; counted at the end."""
        self.number = 0
        """Record of the first name."""


DraftNode = bytes | Folder | Linked


class DraftTree:
    """Directories and their children.  Used by one thread."""

    def __init__(self, implicit: bytes) -> None:
        """Begin with an implicit root; *implicit* is the second part of an implicit directory's record."""
        self.root = Folder(implicit)
        self.folders: dict[bytes, Folder] = {}
        """Some directories by their paths as members spell them, until a directory is replaced."""
        self._implicit = implicit
        self._implicit_folders: list[Folder] = []
        """Directories that were implicit when they were made."""
        self._room = _IMPLICIT
        """How many of these there may be."""

    def add_directory(self, name: bytes, packed: bytes) -> None:
        """Make a directory, or change the attributes of an existing one."""
        path = name.removesuffix(b"/")
        if path[-1:] in _ROOTLIKE and not parts_of(path):
            self.root.packed = packed
            return
        folder, base = self.place(path)
        there = folder.children.get(base)
        if isinstance(there, Folder):
            there.packed = packed
        else:
            there = folder.children[base] = Folder(packed)
            self._remember(path, there)

    def add_file(self, name: bytes, node: bytes | Linked) -> None:
        """Put in a file; it replaces a file or directory of that name."""
        folder, base = self.place(name)
        if base in folder.children:
            self.replace(folder.children[base])
        folder.children[base] = node

    def replace(self, there: DraftNode) -> None:
        """Note that *there* was replaced."""
        if isinstance(there, Folder):
            self.folders.clear()  # all directories below it are gone as well

    def place(self, name: bytes) -> tuple[Folder, bytes]:
        """Return the directory that a file lies in, made if it does not exist, and the file's name in it."""
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
        """Return a directory, None if it does not exist."""
        folder = self.root
        for part in parts:
            below = folder.children.get(part)
            if not isinstance(below, Folder):
                return None
            folder = below
        return folder

    def mark_whiteouts_only(self, packed: bytes) -> None:
        """Give *packed* to implicit directories with nothing but whiteouts below."""
        for folder in reversed(self._implicit_folders):  # children were made after their parents
            if folder.packed is self._implicit and all(
                name.startswith(WHITEOUT) or (isinstance(child, Folder) and child.packed is packed)
                for name, child in folder.children.items()
            ):
                folder.packed = packed

    def count_names(self) -> None:
        """Count the names of files that may have several."""
        queue = [self.root]
        while queue:
            for child in queue.pop().children.values():
                if isinstance(child, Linked):
                    child.names += 1
                elif isinstance(child, Folder):
                    queue.append(child)

    def _walk(self, parts: list[bytes]) -> Folder:
        """Return a directory; it and its parents are made if they do not exist.  Raises TooMany."""
        folder = self.root
        self._room += _IMPLICIT_EACH
        for part in parts:
            below = folder.children.get(part)
            if not isinstance(below, Folder):
                if len(self._implicit_folders) >= self._room:
                    raise TooMany(f"paths lead through more than {_IMPLICIT:,} implicit directories")
                below = folder.children[part] = Folder(self._implicit)
                self._implicit_folders.append(below)
            folder = below
        return folder

    def _remember(self, path: bytes, folder: Folder) -> None:
        if len(self.folders) >= _FOLDERS:
            self.folders.clear()
        if len(path) <= MAX_TARGET:
            self.folders[path] = folder


def parts_of(path: bytes) -> list[bytes]:
    """Return the components of *path*; Skipped if one of them can be no name or leads out of the layer."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if _BAD_NAMES.isdisjoint(parts) and len(path) <= MAX_NAME and b"\0" not in path:
        return parts
    for part in parts:
        if part == b"..":
            msg = "a '..' in the name"
        elif len(part.removeprefix(WHITEOUT)) > MAX_NAME:  # the whiteout of a long name is longer than a name may be
            msg = f"a name of {len(part)} bytes"
        elif b"\0" in part:
            msg = "NUL in the name"
        elif part in _NO_NAMES:
            msg = "a whiteout without a name"
        else:
            continue
        raise Skipped(msg)
    return parts


def check_not_root(parts: list[bytes], kind: Kind) -> None:
    """Raise Skipped if a path of a *kind* other than a directory has no *parts*."""
    if not parts:
        raise Skipped(f"a {kind.value} in place of the root directory")
