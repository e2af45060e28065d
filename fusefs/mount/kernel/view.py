"""The view of an image as a kernel mount, from cached metadata or from metadata that are written now."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from fusefs.content.file import Extent, OpenFile, Sparse
from fusefs.content.protocol import Content, Literal
from fusefs.content.spool import unlinked_file
from fusefs.content.watched import WatchedFile
from fusefs.erofs.contents import stored_contents, view_contents
from fusefs.erofs.ondisk import FORMAT
from fusefs.errors import NO_ROOM, NoSpace
from fusefs.image.model import LayerCache
from fusefs.log import logger
from fusefs.mount.kernel.attach import WrongContents, check_contents
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.record import Known, add_record
from fusefs.mount.kernel.snapshot import Snapshot
from fusefs.mount.kernel.support import BytesMissing, KernelUnable, backing_here
from fusefs.text import printable
from fusefs.tree.node import Directory, LazyDirectory, Node, RegularFile, Symlink
from fusefs.tree.overrides import Overrides
from fusefs.tree.subtree import Subtree
from fusefs.tree.top import Top
from fusefs.tree.walk import ROOT, walk

log = logger(__name__)

_PRIVATE = 0o500
"""Permissions of the root if only the user who mounts, who is root, may read the image: with ``allow_root``, too."""
_ROOM = 1 << 20
"""Bytes that must be free to cache metadata.  Their size is not known in advance; most are smaller."""
_FIRST = 512
"""Bytes of each blob that are compared."""
_DIRECTORIES, _FILES = 16, 64
"""Directories below a subdirectory, and entries in each, that are looked at for files to compare."""


class KernelOptions(NamedTuple):
    """The options of a kernel mount."""

    source: str
    """The device in the mount table: the IMAGE argument."""
    flags: tuple[str, ...]
    """Any of ``allow_other``, ``allow_root``, ``noexec``, ``noatime``."""
    overrides: Overrides
    tmpdir: str
    """The directory of metadata that are not cached."""
    record: str = ""
    """The name of the record with which it can be mounted again, empty for none."""
    contents: str = ""
    """What the record says of the image."""


class KernelView:
    """A view that the kernel can mount.  For use by one thread at a time."""

    def __init__(self, top: Top, layers: Sequence[str], cache: LayerCache | None, options: KernelOptions) -> None:
        """Make sure that there can be snapshots of the user's files that the view of *top*, the mount's root, shows.

        *layers* are names that change with the files of the layers and with the options for their trees.
        Raises KernelUnable if this kernel cannot mount, the image is in an archive at a URL, or a file may change.
        """
        backing_here()
        self._view = top.view
        self._top = top
        self._layers = layers
        self._cache = cache
        self._options = options
        self._snapshots: dict[int, Snapshot] = {}
        self._first_bytes: Known = ()
        """Of files of the last mount."""
        self._check_place()
        try:
            for file in self._user_files():
                self._snapshots[file.descriptor] = Snapshot(file)
            self._key = self._name()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the snapshots; mounts hold them open."""
        for snapshot in self._snapshots.values():
            snapshot.close()
        self._snapshots.clear()

    def cached(self, is_wanted: Callable[[], bool] = lambda: True) -> int | None:
        """Mount from cached metadata; return a descriptor of the mount's root, None if nothing is cached.

        None, too, if bytes of the image are not here, or if it is not wanted, which is asked if there are metadata.
        The mount is attached nowhere.  Raises KernelUnable, and Unavailable if a user's file has changed.
        """
        cache = self._cache
        metadata = None if cache is None else cache.open_cached(self._key)
        if cache is None or metadata is None:
            return None
        try:
            if not self._is_here() or not is_wanted():
                return None
            mount = self._mounted(metadata)
            self._record(cache)
        except WrongContents as error:
            cache.drop(self._key, str(error))
            return None
        except OSError as error:
            raise KernelUnable(f"cannot read its files: {error.strerror}") from None
        else:
            return mount
        finally:
            os.close(metadata)

    def written(self) -> int:
        """Write the metadata, cache them, and mount; return a descriptor of the mount's root.

        Decompresses and indexes layers that were not needed before, but fetches nothing.  The mount is attached
        nowhere.  Raises BytesMissing and KernelUnable, Unfit, Unavailable if a user's file has changed, and the
        exceptions of a first access.
        """
        if not self._is_here():
            raise BytesMissing("layers are not fetched yet")
        cache = self._cache
        if cache is not None and cache.room(_ROOM):
            metadata = cache.new_file()
            try:
                mount = self._written_into(metadata, cache.path)
            except NoSpace as error:
                os.close(metadata)
                log.info("cannot cache its metadata: %s", error)
            except BaseException:
                os.close(metadata)
                raise
            else:
                cache.later(lambda: _add(cache, self._key, metadata))
                self._record(cache)
                return mount
        metadata = unlinked_file(self._options.tmpdir)
        try:
            return self._written_into(metadata, self._options.tmpdir)
        finally:
            os.close(metadata)

    def _written_into(self, metadata: int, folder: str) -> int:
        """Write the metadata into the empty file *metadata* in *folder*, and mount; NoSpace if that is full."""
        from fusefs.erofs.writer import write  # noqa: PLC0415 - cached metadata need no writer

        permissions = None if "allow_other" in self._options.flags else _PRIVATE
        try:
            with open(metadata, "wb", closefd=False) as out:
                written = write(self._view, out, self._options.overrides, permissions, self._top)
            assert [device.descriptor for device in written.devices] == self._files()
            return self._mounted(metadata)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise NoSpace(f"cannot write the metadata in {printable(folder)}: {error.strerror}") from None
            raise KernelUnable(f"cannot read its files: {error.strerror}") from None

    def _mounted(self, metadata: int) -> int:
        options = self._options
        devices = [self._snapshots[file].take() if file in self._snapshots else file for file in self._files()]
        mount = mount_erofs(metadata, devices, options.source, options.flags)
        try:
            known = list(self._known())
            check_contents(mount, known)
        except BaseException:
            os.close(mount)
            raise
        self._first_bytes = known
        return mount

    def _record(self, cache: LayerCache) -> None:
        """Record how it was mounted, once the files that were made for it have their names in the *cache*."""
        options = self._options
        if options.record:
            files = [None if file in self._snapshots else file for file in self._files()]
            about = self._first_bytes, options.contents
            cache.later(lambda: add_record(cache, options.record, self._key, files, about))

    def _files(self) -> list[int]:
        """Return the files that hold the bytes of the view, plain tars included, in the order of the devices."""
        places = (content.file_place() for content in view_contents(self._view))
        return list(dict.fromkeys(place.descriptor for place in places if place is not None))

    def _user_files(self) -> list[WatchedFile]:
        extents = (run for run in stored_contents(self._view) if isinstance(run, Extent))
        files = {extent.file.descriptor: extent.file for extent in extents}
        return [file for file in files.values() if isinstance(file, WatchedFile)]

    def _check_place(self) -> None:
        """Raise KernelUnable for an archive at a URL: unlike the blobs of a registry, it never has a local place."""
        for run in stored_contents(self._view):
            if isinstance(run, Extent) and run.file_place() is None:  # a `RemoteExtent`, whose import takes 0.5 ms
                why = "is an archive at a URL, which is served by FUSE only"
                raise KernelUnable(f"{run.file.name} {why}; download it, or use --driver fuse")

    def _is_here(self) -> bool:
        """Return whether all bytes of the image are on this machine."""
        contents = (content for content in stored_contents(self._view) if not isinstance(content, Literal))
        return all(content.file_place() is not None for content in contents if content.size)

    def _known(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield paths of generated files and blobs and their first bytes; of a subdirectory, those of some files."""
        if not self._top.is_view:
            yield from _some_files(self._top)
            return
        blobs = self._view.entries[b"blobs"]
        assert isinstance(blobs, Directory)
        folders = {b"": self._view}
        folders |= {b"blobs/%s/" % name: node for name, node in blobs.entries.items() if isinstance(node, Directory)}
        for path, folder in folders.items():
            for name, node in folder.entries.items():
                if isinstance(node, RegularFile):
                    yield path + name, bytes(node.content.read_at(0, min(_FIRST, node.content.size)))

    def _name(self) -> str:
        """Return the name of the cached metadata: a hash of all that they depend on."""
        users = [_state(file) for file in self._user_files()]
        options = self._options.overrides, "allow_other" in self._options.flags
        facts = (FORMAT, *self._layers, users, options, _described(self._view), self._top.path)
        return f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.erofs"


def _some_files(top: Top) -> Iterator[tuple[bytes, bytes]]:
    """Yield paths below *top*, and the first bytes, of the first files in its first directories."""
    tree = Subtree(top.tree, top.number, ())
    for _, children in islice(walk(tree, ROOT), _DIRECTORIES):
        nodes = [(child.path[1:], tree.node(child.number)) for child in islice(children, _FILES)]
        yield from (
            (path, bytes(node.content.read_at(0, min(_FIRST, node.content.size))))
            for path, node in nodes
            if isinstance(node, RegularFile)
        )


def _add(cache: LayerCache, name: str, metadata: int) -> None:
    try:
        cache.add(name, metadata)
    finally:
        os.close(metadata)


def _state(file: OpenFile) -> tuple[int, ...]:
    """Return what changes with each write to a user's file."""
    about = os.fstat(file.descriptor)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _described(node: Node) -> tuple[object, ...]:
    """Return all that metadata say of *node*."""
    if isinstance(node, Directory | LazyDirectory):
        assert all(isinstance(value, bytes) for _, value in node.xattrs)  # a function would be another one each time
    match node:
        case Directory():
            below = {**node.entries, **node.unlisted}
            return node.attributes, node.xattrs, [(name, _described(child)) for name, child in below.items()]
        case LazyDirectory():
            return node.attributes, node.xattrs, node.settled
        case RegularFile():
            return node.attributes, node.xattrs, _place(node.content)
        case Symlink():
            return node.attributes, node.target
    return node.attributes, node.type, node.rdev


def _place(content: Content) -> object:
    if isinstance(content, Literal):
        return content.data
    if isinstance(content, Sparse):
        return content.size, [(offset, _place(run)) for offset, run in content.runs()]
    return content.size, content.offset if isinstance(content, Extent) else None
