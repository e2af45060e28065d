"""Writes the view of an image as EROFS metadata, which the kernel mounts with the image's files as its devices.

The metadata are a file: superblock, device table, the nodes of the view, then for each layer its files, and the
directories of each tree.  Files with one name are shared: ``layers/<n>/x`` and ``rootfs/x`` are one inode, so the
kernel caches their bytes once.
"""

from array import array
from itertools import chain
from stat import S_IFDIR
from typing import BinaryIO, NamedTuple

from fusefs.erofs.contents import view_contents
from fusefs.erofs.devices import DataFile, Devices
from fusefs.erofs.inodes import Inodes
from fusefs.erofs.layer_files import write_files
from fusefs.erofs.limits import MAX_ROOT, Unfit
from fusefs.erofs.ondisk import BLOCK, DEVICE_SIZE, DEVICES, INODE_SIZE, SLOT, SUPERBLOCK, pack_superblock
from fusefs.erofs.stream import Cursor, Stream
from fusefs.erofs.trees import PlacedTree
from fusefs.erofs.xattrs import NO_XATTRS
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.tree.node import Directory, KnownTree, LazyDirectory, Tree, stat_of
from fusefs.tree.overrides import Overrides
from fusefs.tree.subtree import Subtree
from fusefs.tree.top import Top

_NO_OVERRIDES = Overrides()


class Written(NamedTuple):
    """Metadata that were written."""

    size: int
    """In bytes, a multiple of the block's size."""
    inodes: int
    devices: tuple[DataFile, ...]
    """The files with the data, in the order in which the kernel must get them."""


def write(
    view: Directory,
    out: BinaryIO,
    overrides: Overrides = _NO_OVERRIDES,
    root_permissions: int | None = None,
    top: Top | None = None,
) -> Written:
    """Write the tree below *view* to *out*, which is empty and can be positioned; first access to all its layers.

    With *root_permissions*, the root has these and its own owner, whatever the overrides are: who may enter is not a
    matter of how files are shown.  With *top*, that directory of the view is the root of the file system: nothing above
    it can be reached, although it is written.  The entries that the view does not list are listed.

    Raises Unfit if EROFS cannot show the tree, OSError if it cannot be written, and the exceptions of a first access.
    The superblock is written last.
    """
    shown = _Shown(Top(view) if top is None else top, root_permissions)
    return _Writer(view, out, overrides, shown).write()


class _Shown:
    """The directory that becomes the root of the file system.

    The number of the root directory has 16 bits, so its inode must be near the beginning: that of a directory inside
    of a layer gets a place before all others, without its entries.
    """

    def __init__(self, top: Top, permissions: int | None) -> None:
        self.top = top
        self.permissions = permissions
        self.placed: PlacedTree | None = None
        """The tree that it lies in."""
        self._nid = self._shared = 0
        self._xattrs = NO_XATTRS

    def reserve(self, cursor: Cursor, inodes: Inodes) -> None:
        """Give the inode its place, unless it is the root of the view."""
        if not self.top.is_view:
            self._xattrs = inodes.xattrs(Subtree(self.top.tree, self.top.number, self.top.xattrs), 0, S_IFDIR)
            self._shared = cursor.blocks(self._xattrs.block_count)
            self._nid = cursor.inode(INODE_SIZE + self._xattrs.size, 0)

    def found_in(self, placed: PlacedTree, lazy: LazyDirectory | None) -> None:
        """Take *placed* if the directory lies in it: in the tree of *lazy*, or of the view."""
        if lazy is not self.top.lazy:
            return
        self.placed = placed
        if self.top.is_view:
            placed.root_permissions = self.permissions
        else:
            placed.top = self.top.number
            placed.set_nid(self.top.number, self._nid)

    @property
    def nid(self) -> int:
        """The number of the root directory."""
        assert self.placed is not None
        return self.placed.nid(self.top.number)

    def write(self, inodes: Inodes) -> None:
        """Write the inode at its place, once the tree is written."""
        if self.top.is_view:
            return
        assert self.placed is not None
        xattrs, inode = self._xattrs, self._nid
        structure = inodes.structure(
            self.placed.stat(self.top.number), xattrs, self.placed.top_data, inode, self.permissions
        )
        inodes.stream.seek(self._shared * BLOCK if xattrs.block_count else inode * SLOT)
        shared = inodes.put_shared(xattrs, self._shared)
        inodes.stream.put(inode * SLOT, structure + xattrs.packed(shared))


class _Mounted(NamedTuple):
    """A lazy directory: the tree in it, and its place in the tree around it."""

    directory: LazyDirectory
    tree: Tree
    around: "_Known"
    number: int

    @property
    def above(self) -> int:
        """The nid of the directory above."""
        return self.around.placed.nid(self.around.tree.parent(self.number))

    def set_nid(self, nid: int) -> None:
        """Set the nid of the directory, which is that of the tree's root."""
        self.around.placed.set_nid(self.number, nid)


class _Known:
    """A tree of known nodes, with the lazy directories in it."""

    def __init__(self, tree: KnownTree, mounted: "_Mounted | None" = None) -> None:
        self.tree = tree
        self.mounted = mounted
        self.lazy: list[_Mounted] = []
        for number in range(len(tree)):
            node = tree.node(number)
            if isinstance(node, LazyDirectory):
                self.lazy.append(_Mounted(node, node.fill(), self, number))
        nids = array("I", [0]) * len(tree)
        elsewhere = [mounted.number for mounted in self.lazy]
        root = stat_of(mounted.directory) if mounted and mounted.directory.settled else None
        self.placed = PlacedTree(tree, [nids], elsewhere=elsewhere, root=root)


class _Writer:
    def __init__(self, view: Directory, out: BinaryIO, overrides: Overrides, shown: _Shown) -> None:
        self._stream = Stream(out)
        self._shown = shown
        self._known = [_Known(KnownTree(view))]
        self._layered: list[tuple[_Mounted, LayerTree | RootfsTree]] = []
        for known in self._known:  # grows
            for mounted in known.lazy:
                self._sort(mounted)
        files = (tree.files for _, tree in self._layered)
        self._files = list(dict.fromkeys(layer for layers in files for layer in layers))
        # A view may be of trees alone, without the blobs that they are parts of.
        self._devices = Devices(chain(view_contents(view), (layer.tar for layer in self._files)))
        self._inodes = Inodes(self._stream, self._devices, overrides)

    def _sort(self, mounted: _Mounted) -> None:
        match mounted.tree:
            case KnownTree() as tree:
                self._known.append(_Known(tree, mounted))
            case LayerTree() | RootfsTree() as tree:
                self._layered.append((mounted, tree))
            case _:
                raise AssertionError(mounted.tree)

    def write(self) -> Written:
        begin = DEVICES + DEVICE_SIZE * len(self._devices)
        cursor = Cursor(begin)
        self._shown.reserve(cursor, self._inodes)
        begin = cursor.position
        for known in self._known:
            self._shown.found_in(known.placed, known.mounted and known.mounted.directory)
            known.placed.place(cursor, self._inodes)
        self._stream.seek(cursor.position)
        self._write_layers(cursor)
        self._connect()
        self._stream.seek(begin)
        again = Cursor(begin)
        for known in self._known:
            known.placed.write(again, self._inodes)
        return self._finish(cursor)

    def _write_layers(self, cursor: Cursor) -> None:
        """Write the files of all layers, then the directories of their trees, and what only one tree has."""
        symlinks = not any(tree.transform_symlinks for _, tree in self._layered)
        shared = {files: write_files(files, self._inodes, cursor, symlinks=symlinks) for files in self._files}
        for mounted, tree in self._layered:
            root = stat_of(mounted.directory) if mounted.directory.settled else None
            nids = [shared[files][:] for files in tree.files]
            placed = PlacedTree(tree, nids, exclusive=tree.shared_names, root=root)
            placed.parent = mounted.above
            self._shown.found_in(placed, mounted.directory)
            begin = Cursor(cursor.position)
            placed.place(cursor, self._inodes)
            placed.write(begin, self._inodes)
            mounted.set_nid(placed.nid(0))

    def _connect(self) -> None:
        """Tell the known trees the nids of each other."""
        view = self._known[0].placed
        view.parent = view.nid(0)
        for known in self._known:
            if known.mounted:
                known.placed.parent = known.mounted.above
                known.mounted.set_nid(known.placed.nid(0))

    def _finish(self, cursor: Cursor) -> Written:
        """Write the device table and then the superblock, without which the file is no file system."""
        blocks = -(-cursor.position // BLOCK)
        root = self._shown.nid
        if root > MAX_ROOT:
            raise Unfit(f"its device table is too long: the root directory would have the number {root}")
        devices = self._devices
        self._stream.seek(blocks * BLOCK - 1)
        self._stream.put(blocks * BLOCK - 1, b"\0" if cursor.position < blocks * BLOCK else b"")
        self._shown.write(self._inodes)
        self._stream.seek(SUPERBLOCK)
        self._stream.put(SUPERBLOCK, pack_superblock(root, cursor.inodes, blocks, len(devices)) + devices.table())
        self._stream.flush()
        return Written(blocks * BLOCK, cursor.inodes, devices.files)
