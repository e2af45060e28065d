"""Views written as EROFS metadata, and their comparison with imgfs's own trees."""

import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from fusefs.content.file import Sparse
from fusefs.content.protocol import Content
from fusefs.erofs.writer import Written, write
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.tree.node import (
    Attributes,
    Directory,
    KnownTree,
    LazyDirectory,
    Node,
    RegularFile,
    Stat,
    Symlink,
    Tree,
    stat_of,
)
from fusefs.tree.overrides import Overrides
from tests.support.erofs_reader import Erofs, ReadInode

FOLDER = Attributes(0o755, 0, 0, 0)
_WHOLE = 1 << 20
"""Up to so many bytes of a file are compared all, of a larger one those around its ends and the ends of runs."""
_AROUND = 4096


class Metadata(NamedTuple):
    """Metadata that were written, and read again."""

    written: Written
    erofs: Erofs


def metadata(view: Directory, overrides: Overrides = Overrides()) -> Metadata:  # noqa: B008 - it is frozen
    """Write *view*."""
    out = io.BytesIO()
    written = write(view, out, overrides)
    assert written.size == len(out.getvalue())
    return Metadata(written, Erofs(out.getvalue(), [file.descriptor for file in written.devices]))


def stack_view(files: Sequence[LayerFiles], *, transform_symlinks: bool = False) -> Directory:
    """Return a view that has only the trees of some layers."""

    def layer(each: LayerFiles) -> LazyDirectory:
        return LazyDirectory(FOLDER, lambda: LayerTree(each, transform_symlinks=transform_symlinks), settled=False)

    def rootfs() -> Tree:
        return RootfsTree(files, transform_symlinks=transform_symlinks)

    layers = {b"%d" % number: layer(each) for number, each in enumerate(files)}
    return Directory(
        FOLDER, {b"layers": Directory(FOLDER, layers), b"rootfs": LazyDirectory(FOLDER, rootfs, settled=False)}
    )


class Place(NamedTuple):
    """A node of a view: its tree, and its number there."""

    tree: Tree
    number: int
    settled: LazyDirectory | None = None
    """The directory whose attributes the root of a tree has."""

    @property
    def node(self) -> Node:
        """The node."""
        return self.tree.node(self.number)

    @property
    def stat(self) -> Stat:
        """Its attributes."""
        return stat_of(self.settled) if self.settled else self.tree.stat(self.number)


def places(view: Directory) -> dict[bytes, Place]:
    """Return all nodes of a view by path, listed or not."""
    found = {b"": Place(KnownTree(view), 0)}
    queue = list(found.items())
    for path, place in queue:  # grows
        tree, number, _ = place
        names = dict(tree.listing(number))
        if isinstance(tree, KnownTree):
            names |= tree._entries[number]
        for name, below in names.items():
            there = Place(tree, below)
            node = there.node
            if isinstance(node, LazyDirectory):
                there = Place(node.fill(), 0, node if node.settled else None)
                node = there.node
            found[path + b"/" + name if path else name] = there
            if isinstance(node, Directory):
                queue.append((path + b"/" + name if path else name, there))
    return found


def check(view: Directory, overrides: Overrides = Overrides()) -> Metadata:  # noqa: B008 - it is frozen
    """Write *view*, read it again, and assert that it is the same: each name, attribute and byte."""
    made = metadata(view, overrides)
    shown, expected = made.erofs.shown, places(view)
    assert shown.keys() == expected.keys()
    for path, place in expected.items():
        _check_one(made.erofs, shown[path], place, overrides, path)
    _check_links(shown, expected)
    return made


def _check_one(erofs: Erofs, inode: ReadInode, place: Place, overrides: Overrides, path: bytes) -> None:
    said = place.stat
    uid = said.uid if overrides.uid is None else overrides.uid
    gid = said.gid if overrides.gid is None else overrides.gid
    mode = said.mode
    if overrides.umask is not None and not stat.S_ISLNK(mode):
        mode = stat.S_IFMT(mode) | 0o777 & ~overrides.umask
    found = inode.mode, inode.uid, inode.gid, inode.mtime_ns, inode.nlink, inode.rdev
    assert found == (mode, uid, gid, said.mtime_ns, said.nlink, said.rdev), path
    assert erofs.xattrs(inode) == kept_xattrs(dict(place.tree.xattrs(place.number))), path
    node = place.node
    if isinstance(node, RegularFile):
        assert inode.size == said.size, path
        for offset, size in _samples(node.content):
            assert erofs.read(inode, offset, size) == bytes(node.content.read_at(offset, size)), path
    elif isinstance(node, Symlink):
        assert erofs.read(inode, 0, inode.size) == node.target, path


def kept_xattrs(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return those that EROFS has names and room for; no test here has ACLs."""
    return {
        name: value
        for name, value in xattrs.items()
        if name.startswith((b"user.", b"trusted.", b"security.")) and name[-1:] != b"." and len(value) < 1 << 16
    }


def _samples(content: Content) -> Iterator[tuple[int, int]]:
    if content.size <= _WHOLE:
        yield 0, content.size
        return
    borders = {0, content.size}
    if isinstance(content, Sparse):
        for offset, run in content.runs():
            borders |= {offset, offset + run.size}
    for border in borders:
        yield max(0, border - _AROUND), 2 * _AROUND


def _check_links(shown: Mapping[bytes, ReadInode], expected: Mapping[bytes, Place]) -> None:
    """Assert that names are those of one file where they should be; other files may be shared if nlink is 1."""
    groups: dict[tuple[int, int], set[int]] = {}
    names: dict[int, set[tuple[int, int]]] = {}
    for path, place in expected.items():
        key = (id(place.tree), place.number)
        groups.setdefault(key, set()).add(shown[path].nid)
        names.setdefault(shown[path].nid, set()).add(key)
    assert all(len(nids) == 1 for nids in groups.values())
    for path, place in expected.items():
        if shown[path].nlink > 1:
            assert names[shown[path].nid] == {(id(place.tree), place.number)}, path


@contextmanager
def on_disk(data: bytes) -> Iterator[int]:
    """Give the descriptor of a file without a name that has *data*."""
    descriptor = os.memfd_create("data", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)
