"""The tree of a layer in memory while its members come: names, and for each the second part of its record.

A file is that part, packed; no object is held for it besides these bytes and its name.

Paths are those of the engines, which unpack a layer into an empty directory that is their root: a member's name and a
hard link's target are cleaned first, ``..`` included (moby pkg/archive/archive.go, filepath.Clean), then symbolic
links of the layer itself are followed on the way, but not at the end.  Where a link dangles, the directories that it
names are made, as containerd (continuity fs.RootPath, then mkparent) and umoci (SecureJoin) do; moby refuses that.
"""

from collections.abc import Iterable
from itertools import starmap

from fusefs.layers.draft_nodes import DraftNode, Folder, Linked, PathWalk, ResolvedPath
from fusefs.layers.record import MAX_NAME, MAX_TARGET, OPAQUE, WHITEOUT, symlink_text, without_flags
from fusefs.tar.header import Kind
from fusefs.tar.members import normalised

_NO_NAMES = frozenset({WHITEOUT, WHITEOUT + b".", WHITEOUT + b".."})
"""Whiteouts that name no file."""
ODD_NAMES = _NO_NAMES | {b"", b".", b".."}
"""Last components that `DraftTree.place` must look at."""
_ROOTLIKE = frozenset({b"", b"/", b"."})
"""Last bytes of a path that may be the root's."""
_IMPLICIT, _IMPLICIT_EACH = 1 << 16, 16
"""Limit of implicit directories: so many, and so many more for each path that makes one.

Each takes 300 bytes of memory and only two bytes of a path, as in ``a/a/a``.
"""
_STEPS, _STEPS_EACH = 1 << 20, 64
"""Limit of components of symbolic links that are followed: so many, and so many more for each path.

Without it a layer of links with long targets would take hours: each path may lead through 40 of them.
"""
_MAX_LINKS = 40
"""Symbolic links that are followed for one path, as many as Linux follows (path_resolution(7))."""
_FOLDERS = 4096
"""Limit of directories found by their paths at once."""


class Skipped(ValueError):
    """A member that cannot be shown; the message gives the reason."""


class Ineffective(ValueError):
    """A whiteout below a file of its own layer, which hides the lower layers itself."""


class TooMany(ValueError):
    """The tree would be out of proportion to its members; the message names the limit."""


class DraftTree:
    """Directories and their children.  Used by one thread."""

    def __init__(self, implicit: bytes, heap: bytearray) -> None:
        """Begin with an implicit root; *implicit* is the second part of an implicit directory's record.

        The *heap* has the targets of symbolic links.
        """
        self.root = Folder(implicit)
        self.folders: dict[bytes, Folder] = {}
        """Some directories by their paths as members spell them, until a directory or a link is replaced."""
        self._implicit = implicit
        self._marker = without_flags(implicit)
        """The second part of the record of a whiteout that is also a directory, as names lie below it."""
        self._heap = heap
        self._made = 0
        """How many directories were implicit when they were made."""
        self._has_markers = False
        """Whether a directory has the name of a whiteout."""
        self._room = _IMPLICIT
        """How many of these there may be."""
        self._steps = _STEPS
        """How many components of links may be followed."""

    def add_directory(self, name: bytes, packed: bytes) -> None:
        """Make a directory, or change the attributes of an existing one; it replaces any other file."""
        path = name.removesuffix(b"/")
        if path[-1:] in _ROOTLIKE and not parts_of(path):
            self.root.packed = packed
            return
        folder, base = self.place(path)
        there = folder.children.get(base)
        if isinstance(there, Folder):
            there.packed = packed
            return
        if there is not None:
            self.replace(there)
        there = folder.children[base] = Folder(packed)
        self._has_markers = self._has_markers or base.startswith(WHITEOUT)
        self._remember(path, there)

    def add_file(self, name: bytes, node: bytes | Linked) -> None:
        """Put in a file; it replaces a file or directory of that name."""
        folder, base = self.place(name)
        if base in folder.children:
            self.replace(folder.children[base])
        folder.children[base] = node

    def replace(self, there: DraftNode) -> None:
        """Note that *there* was replaced: paths that lead through it lead elsewhere."""
        if isinstance(there, Folder) or self._target(there) is not None:
            self.folders.clear()

    def place(self, name: bytes) -> tuple[Folder, bytes]:
        """Return the directory that a file lies in, made if it does not exist, and the file's name in it."""
        path, _, base = name.rpartition(b"/")
        if base in ODD_NAMES or len(base) > MAX_NAME:
            parts = parts_of(name)
            check_not_root(parts, Kind.REGULAR)
            return self._make(parts[:-1], parts[-1]), parts[-1]
        folder = self.folders.get(path)
        if folder is None:
            folder = self._make(parts_of(path), base)
            self._remember(path, folder)
        return folder, base

    def find(self, parts: list[bytes], whose: str) -> ResolvedPath:
        """Return the directory at a path.

        Raises Skipped, which says *whose* path this is, where a file is on the way.
        """
        way = self._walk(PathWalk(self.root, parts))
        if way.rest and way.rest[-1] in way.folders[-1].children and not way.rest[-1].startswith(WHITEOUT):
            raise Skipped(f"its {whose} leads through a file")
        names = [*way.names, *way.rest[-1:]]
        hidden = any(OPAQUE in folder.children for folder in way.folders) or any(
            map(self.is_whited_out, way.folders, names)
        )
        return ResolvedPath(None if way.rest else way.folders[-1], way.names + way.rest[::-1], hidden)

    def settle_whiteouts(self) -> None:
        """Remove implicit directories with nothing but whiteouts below, where a whiteout hides their lower layers.

        The whiteout of a directory says all that those below it say.  A directory with the name of a whiteout and
        names below it gets the attributes of an implicit one: to engines its own member was only a whiteout.
        """
        if not self._made and not self._has_markers:
            return
        directories = [(self.root, b"", self.root, False)]
        """Parent, name, directory, and whether its lower layers are hidden; parents first."""
        for _, _, parent, hidden in directories:  # grows meanwhile
            for name, node in parent.children.items():
                if isinstance(node, Folder):
                    directories.append((parent, name, node, hidden or self.is_whited_out(parent, name)))
        for parent, name, folder, hidden in reversed(directories):
            implicit = folder.packed is self._implicit
            if implicit and hidden and all(starmap(_is_marker, folder.children.items())):
                del parent.children[name]
            elif not implicit and name.startswith(WHITEOUT) and folder.children:
                folder.packed = self._marker

    def is_whited_out(self, folder: Folder, name: bytes) -> bool:
        """Return whether *folder* has a whiteout of *name*; an implicit directory of that name is none."""
        marker = folder.children.get(WHITEOUT + name)
        return marker is not None and not (isinstance(marker, Folder) and marker.packed is self._implicit)

    def count_names(self) -> None:
        """Count the names of files that may have several."""
        queue = [self.root]
        while queue:
            for child in queue.pop().children.values():
                if isinstance(child, Linked):
                    child.names += 1
                elif isinstance(child, Folder):
                    queue.append(child)

    def _make(self, parts: list[bytes], base: bytes) -> Folder:
        """Return the directory of a file called *base*; it and its parents are made if they do not exist.

        Raises Skipped where a file is on the way, as all engines refuse the layer then, but Ineffective for a
        whiteout; TooMany.
        """
        self._room += _IMPLICIT_EACH
        self._steps += _STEPS_EACH
        way = PathWalk(self.root, parts)
        while self._walk(way).rest:
            name, parent = way.rest.pop(), way.folders[-1]
            packed = self._implicit
            if name in parent.children and name.startswith(WHITEOUT):
                packed = self._marker  # engines make no file of a whiteout, so a directory of its name can be made
            elif base.startswith(WHITEOUT) and (name in parent.children or self.is_whited_out(parent, name)):
                raise Ineffective
            elif name in parent.children:
                raise Skipped("its path leads through a file")
            if self._made >= self._room:
                raise TooMany(f"paths lead through more than {_IMPLICIT:,} implicit directories")
            folder = parent.children[name] = Folder(packed)
            self._made += 1
            way.enter(name, folder)
        return way.folders[-1]

    def _walk(self, way: PathWalk) -> PathWalk:
        """Go on along *way* as far as there are directories, through symbolic links; return it.

        Raises Skipped for more than 40 links, or one that names no file; TooMany.
        """
        while way.rest:
            name = way.rest[-1]
            if name == b"..":  # of a link
                way.leave()
                continue
            child = way.folders[-1].children.get(name)
            if isinstance(child, Folder):
                way.enter(way.rest.pop(), child)
            elif child is None or name.startswith(WHITEOUT):  # engines make no file of a whiteout
                if not way.take_back():
                    break
            elif (target := self._target(child)) is not None:
                way.rest.pop()
                self._follow(way, target)
            else:
                break
        return way

    def _follow(self, way: PathWalk, target: bytes) -> None:
        way.links += 1
        if way.links > _MAX_LINKS:
            raise Skipped(f"its path leads through more than {_MAX_LINKS} symbolic links")
        if target.startswith(b"/"):
            del way.folders[1:], way.names[:]
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        _check_names(part for part in parts if part != b"..")
        self._steps -= len(parts)
        if self._steps < 0:
            raise TooMany(f"paths lead through symbolic links of more than {_STEPS:,} components")
        way.follow(parts)

    def _target(self, node: bytes | Linked) -> bytes | None:
        """Return the target of a symbolic link, None for another file."""
        place = symlink_text(node if isinstance(node, bytes) else node.packed)
        return None if place is None else bytes(self._heap[place[0] : place[0] + place[1]])

    def _remember(self, path: bytes, folder: Folder) -> None:
        if len(self.folders) >= _FOLDERS:
            self.folders.clear()
        if len(path) <= MAX_TARGET:
            self.folders[path] = folder


def _is_marker(name: bytes, node: DraftNode) -> bool:
    """Return whether a file is a whiteout or an opaque marker and nothing else."""
    return name.startswith(WHITEOUT) and not (isinstance(node, Folder) and node.children)


def parts_of(path: bytes) -> list[bytes]:
    """Return the components of *path*, ``..`` resolved; Skipped if one of them can be no name."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        parts = [part for part in normalised(path).split(b"/") if part]
    if len(path) > MAX_NAME or b"\0" in path or not _NO_NAMES.isdisjoint(parts):
        _check_names(parts)
    return parts


def _check_names(parts: Iterable[bytes]) -> None:
    for part in parts:
        if len(part.removeprefix(WHITEOUT)) > MAX_NAME:  # the whiteout of a long name is longer than a name may be
            reason = f"a name of {len(part)} bytes"
        elif b"\0" in part:
            reason = "NUL in the name"
        elif part in _NO_NAMES:
            reason = "a whiteout without a name"
        else:
            continue
        raise Skipped(reason)


def check_not_root(parts: list[bytes], kind: Kind) -> None:
    """Raise Skipped if a path of a *kind* other than a directory has no *parts*."""
    if not parts:
        raise Skipped(f"a {kind.value} in place of the root directory")
