"""Writes the index of a layer: its tar in one pass, then the records directory by directory.

Rules for a layer by itself: the last word on a name wins, and a name is a directory once something
lies below it; nothing is resolved through a symbolic link.  A hard link binds to the file that its
target is at that moment.  As a program it is the child process that indexes a large layer.
"""

import errno
import os
import stat
import struct
import sys
import threading
from array import array
from collections.abc import Iterable
from typing import BinaryIO
from zlib import crc32

from fusefs.content import Extent, OpenFile
from fusefs.errors import ImgfsError, NoSpace, printable
from fusefs.layerindex import (
    FILE,
    IMPLICIT,
    LOWER_LINK,
    MAX_NAME,
    MAX_TARGET,
    ONLY_WHITEOUTS,
    RUN,
    SPARSE,
    WHITEOUT,
    XATTR,
)
from fusefs.layerscan import DIRECTORY, HARD_LINK, REGULAR, LayerScan, Plain
from fusefs.layerwriter import Folder, Found, IndexFile, Linked, count_names, mark_whiteouts_only
from fusefs.tarattributes import FileAttributes, file_attributes, listable_xattrs, sparse_runs
from fusefs.tarheader import BrokenHeader, Kind
from fusefs.tarindex import ContentSource, Member, Source

_NO_NAMES = frozenset({WHITEOUT, WHITEOUT + b".", WHITEOUT + b".."})
"""Whiteouts of what is no name."""
_BAD_NAMES = _NO_NAMES | {b".."}
_ODD_NAMES = _BAD_NAMES | {b"", b"."}
_ROOTLIKE = frozenset({b"", b"/", b"."})
"""Ends of a path to the root."""
_FOLDERS = 4096
"""Directories that are kept by their paths."""
_MAX_BLOCKS = (1 << 32) - 1
_PLAIN = struct.Struct("<QQ24s14xI4xQ8x")
"""What a plain member says, as `FILE` has it: offset, size, time and owner, length and offset of the text."""
assert _PLAIN.size == FILE.size


class Skipped(ValueError):
    """A member that cannot be shown; the message says why."""


class LayerIndexer:
    """Takes a layer's members in order, then writes the index.

    In memory a file takes its name, the second part of its record and one dictionary entry.
    """

    def __init__(self, created: int, created_ns: int) -> None:
        """Give directories that nothing lists the time *created*, seconds and nanoseconds."""
        implicit = FileAttributes(stat.S_IFDIR | 0o755, 0, 0, created, created_ns, 0, 0, ())
        self._heap = bytearray()
        self._implicit = self._packed(implicit, 0, 0, IMPLICIT, b"")
        self._only_whiteouts = self._packed(implicit, 0, 0, IMPLICIT | ONLY_WHITEOUTS, b"")
        self._root = Folder(self._implicit)
        self._unlisted: list[Folder] = []
        """Directories that nothing listed when they were made."""
        self._folders: dict[bytes, Folder] = {}
        self._headers, self._sums = array("Q"), array("I")
        self._linked = False
        self.skipped = 0
        self.first_skipped = ""

    def add(self, tar: Source, member: Member) -> None:
        """Take one member of any kind; what cannot be shown is counted."""
        self._headers.append(member.block_offset)
        self._sums.append(crc32(member.block))
        try:
            self._add(tar, member)
        except (Skipped, BrokenHeader) as error:
            self._skip(member.name, error)

    def add_plain(self, members: Iterable[Plain]) -> None:
        """Take plain members; what cannot be shown is counted."""
        add_header, add_sum, folders = self._headers.append, self._sums.append, self._folders
        for typeflag, name, about, offset, size, link, header, crc in members:
            add_header(header)
            add_sum(crc)
            try:
                if typeflag == REGULAR:
                    path, _, base = name.rpartition(b"/")
                    folder = folders.get(path)
                    if folder is None or base in _ODD_NAMES or len(base) > MAX_NAME:
                        folder, base = self._place(name)
                    if base in folder.entries:
                        self._replace(folder.entries[base])
                    folder.entries[base] = _PLAIN.pack(offset, size, about, 0, 0)
                elif typeflag == DIRECTORY:
                    self._list(name, _PLAIN.pack(0, 0, about, 0, 0))
                elif typeflag == HARD_LINK:
                    _check_not_root(_parts(name), Kind.HARD_LINK)
                    self._link(name, link)
                else:
                    _check_not_root(_parts(name), Kind.SYMLINK)
                    text = _target(link)
                    self._put(name, _PLAIN.pack(offset, len(text), about, len(text), len(self._heap)))
                    self._heap += text
            except Skipped as error:
                self._skip(name, error)

    def _add(self, tar: Source, member: Member) -> None:
        parts = _parts(member.name)
        match member.kind:
            case Kind.PAX_GLOBAL:
                pass
            case Kind.OTHER:
                msg = "a member of an unknown type"
                raise Skipped(msg)
            case Kind.DIRECTORY:
                self._list(member.name, self._packed(self._attributes(member), 0, 0, 0, b""))
            case Kind.HARD_LINK:
                _check_not_root(parts, member.kind)
                self._link(member.name, member.link)
            case _:
                _check_not_root(parts, member.kind)
                self._file(tar, member)

    def _attributes(self, member: Member) -> FileAttributes:
        """Return the attributes of *member*, without extended ones that the kernel does not take."""
        attributes = file_attributes(member)
        listable = listable_xattrs(attributes.xattrs)
        if len(listable) < len(attributes.xattrs):
            self._skip(member.name, "extended attributes of more than 64 KiB")
        return attributes._replace(xattrs=listable)

    def _skip(self, name: bytes, why: object) -> None:
        if not self.skipped:
            self.first_skipped = f"{printable(name[:300])}: {why}"
        self.skipped += 1

    def _list(self, name: bytes, about: bytes) -> None:
        """Make a directory, or give one that is there other attributes."""
        path = name.removesuffix(b"/")
        if path[-1:] in _ROOTLIKE and not _parts(path):
            self._root.about = about
            return
        folder, base = self._place(path)
        there = folder.entries.get(base)
        if isinstance(there, Folder):
            there.about = about
        else:
            there = folder.entries[base] = Folder(about)
            self._remember(path, there)

    def _file(self, tar: Source, member: Member) -> None:
        text, offset, size, flags = b"", member.offset, member.size, 0
        if member.kind is Kind.SYMLINK:
            text, size = _target(member.link), len(member.link)
        elif member.sparse:
            size, runs = sparse_runs(member, tar.read_at)
            text, flags = b"".join(RUN.pack(*run) for run in runs), SPARSE
        about = self._packed(self._attributes(member), offset, size, flags, text)
        self._put(member.name, about)

    def _link(self, name: bytes, link: bytes) -> None:
        target = _parts(link)
        if not target:
            msg = "a hard link to the root"
            raise Skipped(msg)
        there = self._find(target[:-1])
        found = None if there is None else there.entries.get(target[-1])
        if isinstance(found, Folder):
            msg = "a hard link to a directory"
            raise Skipped(msg)
        if found is None:
            # Its attributes are those of the file below, so none are kept.
            nothing = FileAttributes(stat.S_IFREG, 0, 0, 0, 0, 0, 0, ())
            found = Linked(self._packed(nothing, 0, 0, LOWER_LINK, b"/".join(target)), lower=True)
        elif isinstance(found, bytes):
            assert there is not None
            found = there.entries[target[-1]] = Linked(found, lower=False)
        self._linked = True
        self._put(name, found)

    def _put(self, name: bytes, found: Found) -> None:
        folder, base = self._place(name)
        if base in folder.entries:
            self._replace(folder.entries[base])
        folder.entries[base] = found

    def _replace(self, there: Found) -> None:
        if isinstance(there, Folder):
            self._folders.clear()  # a directory goes, with what is below it

    def _place(self, name: bytes) -> tuple[Folder, bytes]:
        """Return the directory that a file lies in, which is made where there is none, and its name in it."""
        path, _, base = name.rpartition(b"/")
        if base in _ODD_NAMES or len(base) > MAX_NAME:
            parts = _parts(name)
            _check_not_root(parts, Kind.REGULAR)
            return self._walk(parts[:-1]), parts[-1]
        return self._folders.get(path) or self._folder(path), base

    def _folder(self, path: bytes) -> Folder:
        folder = self._walk(_parts(path))
        self._remember(path, folder)
        return folder

    def _remember(self, path: bytes, folder: Folder) -> None:
        """Keep a directory by its path, however that is written, until a directory is replaced."""
        if len(self._folders) >= _FOLDERS:
            self._folders.clear()
        self._folders[path] = folder

    def _walk(self, parts: list[bytes]) -> Folder:
        """Return a directory; it and those above it are made where there are none."""
        folder = self._root
        for part in parts:
            below = folder.entries.get(part)
            if not isinstance(below, Folder):
                below = folder.entries[part] = Folder(self._implicit)
                self._unlisted.append(below)
            folder = below
        return folder

    def _find(self, parts: list[bytes]) -> Folder | None:
        folder = self._root
        for part in parts:
            below = folder.entries.get(part)
            if not isinstance(below, Folder):
                return None
            folder = below
        return folder

    def _packed(self, attributes: FileAttributes, offset: int, size: int, flags: int, text: bytes) -> bytes:
        """Return the second part of a record; *text* and extended attributes go into the heap."""
        text_offset = len(self._heap) if text else 0
        self._heap += text
        xattr_offset = len(self._heap) if attributes.xattrs else 0
        for name, value in attributes.xattrs:
            self._heap += XATTR.pack(len(name), len(value)) + name + value
        xattr_length = len(self._heap) - xattr_offset if attributes.xattrs else 0
        blocks = 0
        if flags & SPARSE:
            blocks = min(-(-sum(stored for _, _, stored in RUN.iter_unpack(text)) // 512), _MAX_BLOCKS)
        return FILE.pack(
            offset, size, attributes.mtime, attributes.mtime_ns, attributes.mode, attributes.uid, attributes.gid,
            attributes.major, attributes.minor, xattr_length, flags, len(text), blocks, text_offset, xattr_offset,
        )  # fmt: skip

    def write(self, file: BinaryIO) -> None:
        """Write the index to *file*, from its beginning; this is of no use afterwards."""
        unlisted = (folder for folder in reversed(self._unlisted) if folder.about is self._implicit)
        mark_whiteouts_only(unlisted, self._only_whiteouts)
        if self._linked:
            count_names(self._root)
        self._folders.clear()
        IndexFile(file, self._heap).write(self._root, self._headers, self._sums)


def _check_not_root(parts: list[bytes], kind: Kind) -> None:
    if not parts:
        msg = f"a {kind.value} in the place of the root"
        raise Skipped(msg)


def _parts(path: bytes) -> list[bytes]:
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


def _target(link: bytes) -> bytes:
    if not link or len(link) > MAX_TARGET or b"\0" in link:
        msg = f"a symbolic link to {len(link)} bytes, or to NUL"
        raise Skipped(msg)
    return link


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of writing the index; any other is one of reading the tar."""


def index_layer(tar: Source, created_ns: int, file: BinaryIO) -> list[str]:
    """Write the index of the layer *tar* to *file*; return warnings of what is odd and what was skipped.

    Directories that nothing lists get the time *created_ns*.  Raises InvalidImage if it is no tar,
    and OSError.
    """
    indexer = LayerIndexer(*divmod(created_ns, 10**9))
    warnings: list[str] = []
    scan = LayerScan(tar, warnings.append)
    indexer.add_plain(scan.plain())
    while (member := scan.other()) is not None:
        indexer.add(tar, member)
        indexer.add_plain(scan.plain())
    indexer.write(file)
    if indexer.skipped:
        first = indexer.first_skipped
        warnings.append(f"{tar.name}: skipped {indexer.skipped} members that cannot be shown; the first: {first}")
    return warnings


def main() -> int:
    """Index a layer: ``indexer TAR OFFSET SIZE INDEX CREATED_NS NAME``, files as open descriptors.

    Warnings go to standard output, a line each, an error to standard error.  The end of standard input ends
    this process: whoever started it is gone.
    """
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    descriptor, offset, size, index, created_ns = map(int, sys.argv[1:6])
    name = sys.argv[6]
    content = Extent(OpenFile(descriptor, name), offset, size)
    try:
        with open(index, "wb", closefd=False) as file:
            for warning in index_layer(ContentSource(content, name), created_ns, file):
                print(warning)
    except ImgfsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        return NoSpace.exit_code if error.errno in NO_ROOM else 1
    return 0


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
