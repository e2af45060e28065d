"""One image as a directory of a catalog.

Its own names are listed without the image: only what is below them, or the size of a document, needs it.  So a walk
that does not go deeper saves nothing.  All answers that need the image are `Unready` until it is open.
"""

import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fusefs.image.opened import Opened
from fusefs.mount.catalog.images import Images
from fusefs.mount.catalog.provider import Listed
from fusefs.mount.inodes import Owner, Unready
from fusefs.mount.view import ViewOptions, image_view
from fusefs.oci.reference import tag_of
from fusefs.oci.transport import REGISTRY
from fusefs.tree.node import (
    Attributes,
    Directory,
    KnownTree,
    LazyDirectory,
    Node,
    RegularFile,
    Stat,
    Tree,
    Xattrs,
    present,
    stat_of,
)

IMAGE_NAMES = (
    *(b"manifest.json", b"config", b"blobs", b"oci-layout", b"index.json"),
    *(b"layers", b"rootfs", b".uncompressed", b"files"),
)
"""All names that a view of an image may have.  The number of a node is the place of its name here, from 1 on."""
_NUMBERS = {name: number for number, name in enumerate(IMAGE_NAMES, 1)}
_FOLDERS = frozenset({b"blobs", b"layers", b"rootfs", b".uncompressed", b"files"})
_TREES = frozenset({b"layers", b"rootfs"})
_EXPECTED = IMAGE_NAMES[:7]
"""The names of nearly all images."""
_UNKNOWN = frozenset(_NUMBERS.values()) - {_NUMBERS[name] for name in _EXPECTED}


class _Known(NamedTuple):
    """What is remembered of a node of the view when the image is let go."""

    stat: Stat
    xattrs: Xattrs
    settled: bool


class ImageDirectory(Owner):
    """The tree of one image directory.  `_known` and `_view` are set as a whole; a stale value only opens again."""

    has_lazy = True

    def __init__(self, listed: Listed, images: Images, options: ViewOptions) -> None:
        """Show the image of *listed*, one of *images*."""
        super().__init__()
        self.listed = listed
        self._images = images
        self.image = images.image(listed)
        self.used = time.monotonic()
        self._options = options
        self._view: Directory | None = None
        self._known: dict[int, _Known] | None = None

    def enter(self) -> None:
        """Keep the image for other directories, too, until `leave`."""
        self._images.enter(self.image)

    def leave(self) -> None:
        """Let go of the image, unless other directories of it are in use."""
        self._images.leave(self.image)

    @property
    def is_held(self) -> bool:
        """Whether there is something to let go."""
        return self.image.is_open or self._view is not None

    @property
    def is_known(self) -> bool:
        """Whether the image has been open, so that names and attributes are those of the image."""
        return self._known is not None

    def release(self) -> None:
        """Let go of the image and all trees; those that are needed are made again, with the same numbers."""
        for numbered in self.trees:
            numbered.release()
        self._view = None
        self.image.release()

    def settling(self, directory: int, name: bytes | None) -> None:
        """Return None: wait for an image by `Unready`."""

    def node(self, number: int) -> Node:
        """Return a node; Unready for a document while the image is not open."""
        if not number:
            return Directory(self._attributes())
        if number > len(IMAGE_NAMES):
            raise LookupError(number)
        name = IMAGE_NAMES[number - 1]
        if name not in _FOLDERS:
            node = self._opened().entries[name]
            assert isinstance(node, RegularFile)
            return node
        known = self._known.get(number) if self._known else None
        attributes = _attributes(known.stat) if known else self._attributes()
        return LazyDirectory(
            attributes,
            lambda: self._below(name),
            settled=known is None or known.settled,
            xattrs=known.xattrs if known else (),
        )

    def stat(self, number: int) -> Stat:
        """Return the stat result of a node; of a document, with the size 0 until the image has been open."""
        if number and self._known and number in self._known:
            return self._known[number].stat
        if number and number <= len(IMAGE_NAMES) and IMAGE_NAMES[number - 1] not in _FOLDERS:
            _, uid, gid, mtime_ns, _ = self._attributes()
            return Stat(stat.S_IFREG | 0o444, 1, uid, gid, mtime_ns)
        return stat_of(self.node(number))

    def xattrs(self, number: int) -> Iterable[tuple[bytes, bytes]]:
        """Return the extended attributes of a node; Unready for a document while the image has not been open."""
        if not number:
            own = (*(self._known[0].xattrs if self._known else ()), *self.xattrs_of_catalog())
            return present(own)
        if self._known is None and number not in map(_NUMBERS.get, _FOLDERS):
            raise self._unready()
        known = self._known.get(number) if self._known else None
        return present(known.xattrs if known else ())

    def xattrs_of_catalog(self) -> Xattrs:
        """Return what the catalog says about the directory."""
        return error_xattrs(self.image.error)

    def parent(self, number: int) -> int:  # noqa: ARG002 - the protocol's name
        """Return the root."""
        return 0

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the number of a name; Unready for one that only some images have, and for a document."""
        number = None if directory else _NUMBERS.get(name)
        if number is None:
            return None
        if self._known is not None:
            return number if number in self._known else None
        if number in _UNKNOWN or name not in _FOLDERS or (name in _TREES and not self._options.trees):
            raise self._unready()
        return number

    def size(self, directory: int) -> int:  # noqa: ARG002
        """Return the number of names."""
        return len(IMAGE_NAMES)

    def listing(self, directory: int) -> Sequence[tuple[bytes, int]]:  # noqa: ARG002
        """Return the names and their numbers: those of nearly all images until the image has been open."""
        known = self._known
        if known is None:
            return [(name, _NUMBERS[name]) for name in _EXPECTED if self._options.trees or name not in _TREES]
        return [(name, number) for name, number in _NUMBERS.items() if number in known]

    def entries(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, number and mode of all entries, sorted by name."""
        for name, number in sorted(self.listing(directory)):
            yield name, number, self.stat(number).mode

    def _attributes(self) -> Attributes:
        created_ns = self._known[0].stat.mtime_ns if self._known else self.listed.created_ns
        return Attributes(0o555, self._options.uid, self._options.gid, created_ns)

    def _unready(self) -> Unready:
        return Unready(id(self), self._made_view, owner=self)

    def _opened(self) -> Directory:
        """Return the view of the image; Unready if it is not open."""
        if self._view is None:
            raise self._unready()
        return self._view

    def _made_view(self) -> Directory:
        """Return the view of the image, opened now if it is not."""
        opened = self.image.open()
        view = self._view
        if view is None:
            with self.image.failing():
                view = self._view_of(opened)
            self._known = {_NUMBERS[name]: _known(node) for name, node in view.entries.items()} | {0: _known(view)}
            self._view = view
        return view

    def _view_of(self, opened: Opened) -> Directory:
        image, name = opened.image, self.listed.name
        tag = tag_of(name.removeprefix(REGISTRY.prefix)) or image.tag
        return image_view(
            image._replace(source=image.source._replace(name=name), tag=tag), opened.layers, self._options
        )

    def _below(self, name: bytes) -> Tree:
        node = self._made_view().entries.get(name)
        match node:
            case LazyDirectory():
                return node.fill()
            case Directory():
                return KnownTree(node)
        return KnownTree(Directory(self._attributes()))  # this image has no such directory


def error_xattrs(error: str) -> Xattrs:
    """Return the attribute of a directory of which *error* says what failed, nothing if that is empty."""
    return ((b"user.imgfs.error", error.encode("utf-8", "backslashreplace")[:2048]),) if error else ()


def _known(node: Node) -> _Known:
    settled = not isinstance(node, LazyDirectory) or node.settled
    xattrs = node.xattrs if isinstance(node, Directory | LazyDirectory | RegularFile) else ()
    return _Known(stat_of(node), xattrs, settled)


def _attributes(about: Stat) -> Attributes:
    return Attributes(about.mode & 0o7777, about.uid, about.gid, about.mtime_ns, about.nlink)
