"""Indexes a layer: reads its tar in one pass, then writes the records directory by directory.

Rules for a layer by itself: the last member of a name wins, unless it
lies below a file.  Paths are resolved as in `draft_tree`.  A hard link binds to the file that its target is
at that moment, and applies its own attributes to it.
"""

import stat
from array import array
from collections.abc import Iterable
from typing import BinaryIO
from zlib import crc32

from fusefs.errors import InvalidImage
from fusefs.layers.draft_nodes import Folder, Linked, ResolvedPath
from fusefs.layers.draft_tree import (
    ODD_NAMES,
    DraftTree,
    Ineffective,
    Skipped,
    TooMany,
    check_not_root,
    parts_of,
)
from fusefs.layers.record import (
    IMPLICIT,
    LOWER_LINK,
    MAX_NAME,
    MAX_TARGET,
    SPARSE,
    WHITEOUT,
    FilePart,
    iter_runs,
    pack_file,
    pack_plain_file,
    pack_run,
    pack_xattr,
    unpack_attributes,
    unpack_xattrs,
)
from fusefs.layers.scan import DIRECTORY, HARD_LINK, REGULAR, Found, LayerScan, Plain
from fusefs.layers.writer import IndexWriter
from fusefs.tar.attributes import FileAttributes, file_attributes, listable_xattrs, sparse_runs
from fusefs.tar.header import BrokenHeader, Kind
from fusefs.tar.members import ByteSource, Member
from fusefs.text import printable

_MAX_BLOCKS = (1 << 32) - 1
"""The most that a record can hold."""


_LOWER_LINKS = 256
"""Limit of the links into lower layers that are remembered."""


class LayerIndexer:
    """Takes a layer's members in order, then writes the layer index.

    A file takes the memory of its name, the second part of its record and one item of a dictionary.
    """

    def __init__(self, created: int, created_ns: int) -> None:
        """Give implicit directories the time *created*, in seconds and nanoseconds."""
        implicit = FileAttributes(stat.S_IFDIR | 0o755, 0, 0, created, created_ns, 0, 0, ())
        self._heap = bytearray()
        self._tree = DraftTree(self._packed(implicit, 0, 0, IMPLICIT, b""), self._heap)
        self._lower_links: dict[bytes, bytes] = {}
        """Records of links into lower layers, by the path there: many links to one file have one text in the heap."""
        self._headers, self._sums = array("Q"), array("I")
        self._linked = False
        self._skipped = 0
        self._first_skipped = ""

    def add(self, tar: ByteSource, member: Member) -> None:
        """Take one member of any kind; one that cannot be shown is counted."""
        self._headers.append(member.block_offset)
        self._sums.append(crc32(member.block))
        try:
            self._add(tar, member)
        except Ineffective:
            pass
        except (Skipped, BrokenHeader) as error:
            self._skip(member.name, error)

    def add_plain(self, members: Iterable[Plain]) -> None:
        """Take plain members; those that cannot be shown are counted."""
        add_header, add_sum, tree = self._headers.append, self._sums.append, self._tree
        for typeflag, name, attributes, offset, size, link, header, crc in members:
            add_header(header)
            add_sum(crc)
            try:
                if typeflag == REGULAR:
                    path, _, base = name.rpartition(b"/")
                    folder = tree.folders.get(path)
                    if folder is None or base in ODD_NAMES or len(base) > MAX_NAME:
                        folder, base = tree.place(name)
                    if base in folder.children:
                        tree.replace(folder.children[base])
                    folder.children[base] = pack_plain_file(offset, size, attributes, 0, 0)
                elif typeflag == DIRECTORY:
                    tree.add_directory(name, pack_plain_file(0, 0, attributes, 0, 0))
                elif typeflag == HARD_LINK:
                    check_not_root(parts_of(name), Kind.HARD_LINK)
                    mtime, mtime_ns, mode, uid, gid = unpack_attributes(attributes)
                    self._link(name, link, FileAttributes(mode, uid, gid, mtime, mtime_ns, 0, 0, ()))
                else:
                    check_not_root(parts_of(name), Kind.SYMLINK)
                    text, at = _target(link), len(self._heap)
                    self._heap += text
                    tree.add_file(name, pack_plain_file(offset, len(text), attributes, len(text), at))
            except Ineffective:
                pass
            except Skipped as error:
                self._skip(name, error)

    def _add(self, tar: ByteSource, member: Member) -> None:
        parts = parts_of(member.name)
        match member.kind:
            case Kind.PAX_GLOBAL:
                pass
            case Kind.OTHER:
                raise Skipped("a member of an unknown type")
            case Kind.DIRECTORY:
                self._tree.add_directory(member.name, self._packed(self._attributes(member), 0, 0, 0, b""))
            case Kind.HARD_LINK:
                check_not_root(parts, member.kind)
                self._link(member.name, member.link, self._attributes(member))
            case _:
                check_not_root(parts, member.kind)
                self._file(tar, member)

    def _attributes(self, member: Member) -> FileAttributes:
        """Return the attributes of *member*, without extended attributes that exceed the kernel's limits."""
        attributes = file_attributes(member)
        listable = listable_xattrs(attributes.xattrs)
        if len(listable) < len(attributes.xattrs):
            self._skip(member.name, "extended attributes of more than 64 KiB")
        return attributes._replace(xattrs=listable)

    def _skip(self, name: bytes, reason: object) -> None:
        if not self._skipped:
            self._first_skipped = f"{printable(name[:300])}: {reason}"
        self._skipped += 1

    def _file(self, tar: ByteSource, member: Member) -> None:
        text, offset, size, flags = b"", member.offset, member.size, 0
        if member.kind is Kind.SYMLINK:
            text, size = _target(member.link), len(member.link)
        elif member.sparse:
            size, runs = sparse_runs(member, tar.read_at)
            text, flags = b"".join(pack_run(*run) for run in runs), SPARSE
        self._tree.add_file(member.name, self._packed(self._attributes(member), offset, size, flags, text))

    def _link(self, name: bytes, link: bytes, attributes: FileAttributes) -> None:
        *directory, last = parts_of(name)
        if last.startswith(WHITEOUT):  # engines look at nothing but the name of a whiteout
            self._whiteout(name, attributes)
            return
        place, base = self._target_of_link(directory, last, link)
        children = {} if place.folder is None else place.folder.children
        found = children.get(base)
        if isinstance(found, Folder):
            raise Skipped("a hard link to a directory")
        if found is None and place.folder is not None and self._tree.is_whited_out(place.folder, base):
            # Of a file that this layer removed, overlayfs has a whiteout device: a link to it is a whiteout.
            self._whiteout(b"/".join((*directory, WHITEOUT + last)), attributes)
            return
        if found is None and place.lower_hidden:
            raise Skipped("a hard link to a file that its layer has removed")
        if found is None:
            found = Linked(self._lower_link(b"/".join((*place.path, base))), lower=True)
        elif isinstance(found, bytes):
            found = children[base] = Linked(found, lower=False)
        self._linked = True
        self._tree.add_file(name, found)
        if not found.lower:
            found.packed = self._relinked(found.packed, attributes)

    def _lower_link(self, path: bytes) -> bytes:
        """Return the second part of the record of a link to *path* in a lower layer."""
        packed = self._lower_links.get(path)
        if packed is None:
            # It has the attributes of the file in the lower layer, so none are stored.
            nothing = FileAttributes(stat.S_IFREG, 0, 0, 0, 0, 0, 0, ())
            packed = self._packed(nothing, 0, 0, LOWER_LINK, path)
            if len(self._lower_links) >= _LOWER_LINKS:
                self._lower_links.clear()
            if len(path) <= MAX_TARGET:
                self._lower_links[path] = packed
        return packed

    def _target_of_link(self, directory: list[bytes], last: bytes, link: bytes) -> tuple[ResolvedPath, bytes]:
        """Return the place and name of a hard link's target; Skipped if engines find none, wherever it may be."""
        target = parts_of(link)
        if not target:
            raise Skipped("a hard link to the root")
        base = target.pop()
        place = self._tree.find(target, "target")
        path, own_path = [*place.path, base], [*self._tree.find(directory, "path").path, last]
        if path[: len(own_path)] == own_path:  # engines remove it before they make the link
            raise Skipped("a hard link to itself or below itself")
        if own_path[: len(path)] == path:
            raise Skipped("a hard link below its own target")
        if base.startswith(WHITEOUT):
            raise Skipped("a hard link to a whiteout")
        return place, base

    def _whiteout(self, name: bytes, attributes: FileAttributes) -> None:
        self._tree.add_file(name, self._packed(attributes, 0, 0, 0, b""))

    def _relinked(self, packed: bytes, attributes: FileAttributes) -> bytes:
        """Return the second part of a file's record with the *attributes* of a hard link to it.

        Docker and Podman apply the header of a hard link like any other (moby pkg/archive/archive.go,
        createTarFile): owner, extended attributes in addition to those that the file has, then, but not to a
        symbolic link, mode and time.  To change the owner removes capabilities (chown(2)).
        """
        file = FilePart.unpacked(packed)
        own = unpack_xattrs(bytes(self._heap[file.xattr_offset : file.xattr_offset + file.xattr_length]))
        xattrs = {name: value for name, value in own if name != b"security.capability"} | dict(attributes.xattrs)
        file = file._replace(uid=attributes.uid, gid=attributes.gid)
        if not stat.S_ISLNK(file.mode):
            mode = stat.S_IFMT(file.mode) | stat.S_IMODE(attributes.mode)
            file = file._replace(mode=mode, mtime=attributes.mtime, mtime_ns=attributes.mtime_ns)
        if tuple(xattrs.items()) != tuple(own):
            offset, length = self._xattrs(listable_xattrs(xattrs.items()))
            file = file._replace(xattr_offset=offset, xattr_length=length)
        return pack_file(*file)

    def warnings(self, name: str) -> list[str]:
        """Return the warnings about skipped members of the layer called *name*."""
        if not self._skipped:
            return []
        return [f"{name}: skipped {self._skipped} members that cannot be shown; the first: {self._first_skipped}"]

    def _packed(self, attributes: FileAttributes, offset: int, size: int, flags: int, text: bytes) -> bytes:
        """Return the second part of a record; *text* and extended attributes are added to the heap."""
        text_offset = len(self._heap) if text else 0
        self._heap += text
        xattr_offset, xattr_length = self._xattrs(attributes.xattrs)
        blocks = 0
        if flags & SPARSE:
            blocks = min(-(-sum(stored for _, _, stored in iter_runs(text)) // 512), _MAX_BLOCKS)
        return pack_file(
            offset, size, attributes.mtime, attributes.mtime_ns, attributes.mode, attributes.uid, attributes.gid,
            attributes.major, attributes.minor, xattr_length, flags, len(text), blocks, text_offset, xattr_offset,
        )  # fmt: skip

    def _xattrs(self, xattrs: Iterable[tuple[bytes, bytes]]) -> tuple[int, int]:
        """Add extended attributes to the heap; return their offset and length."""
        data = b"".join(pack_xattr(name, value) for name, value in xattrs)
        offset = len(self._heap) if data else 0
        self._heap += data
        return offset, len(data)

    def write(self, file: BinaryIO) -> None:
        """Write the layer index to *file*, from its beginning; the indexer cannot be used afterwards."""
        self._tree.settle_whiteouts()
        if self._linked:
            self._tree.count_names()
        IndexWriter(file, self._heap).write(self._tree.root, self._headers, self._sums)


def _target(link: bytes) -> bytes:
    if not link or len(link) > MAX_TARGET or b"\0" in link:
        raise Skipped(f"a symbolic link to {len(link)} bytes, or to NUL")
    return link


def index_layer(tar: ByteSource, created_ns: int, file: BinaryIO) -> list[str]:
    """Write the layer index of *tar* to *file*; return warnings about an odd end and skipped members.

    Implicit directories get the time *created_ns*.  Raises InvalidImage if the layer is not a tar archive, and OSError.
    """
    return index_scanned(LayerScan(tar), created_ns, file)


def index_scanned(scan: LayerScan | Found, created_ns: int, file: BinaryIO) -> list[str]:
    """Do the same with the tar of *scan*, which may have been scanned before."""
    tar = scan.tar
    indexer = LayerIndexer(*divmod(created_ns, 10**9))
    if not tar.read_at(
        0, 1
    ):  # to Go's archive/tar, which engines read layers with, no bytes are an archive of no members
        indexer.write(file)
        return []
    try:
        indexer.add_plain(scan.plain())
        while (member := scan.other()) is not None:
            indexer.add(tar, member)
            indexer.add_plain(scan.plain())
    except TooMany as error:
        raise InvalidImage(f"{tar.name}: refused: {error}") from None
    indexer.write(file)
    return [*scan.warnings, *indexer.warnings(tar.name)]
