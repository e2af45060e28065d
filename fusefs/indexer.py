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
from itertools import pairwise
from typing import BinaryIO

from fusefs.content import Extent, OpenFile
from fusefs.errors import ImgfsError, NoSpace, printable
from fusefs.layerindex import (
    HEADER,
    IMPLICIT,
    LOWER_LINK,
    MAGIC,
    MAX_NAME,
    MAX_TARGET,
    ONLY_WHITEOUTS,
    RECORD,
    RUN,
    SPARSE,
    WHITEOUT,
    XATTR,
)
from fusefs.tarattributes import FileAttributes, file_attributes, listable_xattrs, sparse_runs
from fusefs.tarheader import BrokenHeader, Kind
from fusefs.tarindex import ContentSource, Member, Source, scan

_NO_NAMES = frozenset({WHITEOUT, WHITEOUT + b".", WHITEOUT + b".."})
"""Whiteouts of what is no name."""
_NONE = 0xFFFFFFFF

_INODE = struct.Struct("<QQqIIIIIIHIIQQ")
"""offset, size, mtime, mtime_ns, mode, uid, gid, major, minor, flags, text length, xattr length, text, xattrs"""
_FLAGS_AT = struct.calcsize("<QQqIIIIII")
_KEY = struct.Struct(">I")
"""Number of a directory's inode, before a name: keys sort by directory, then by name."""


class Skipped(ValueError):
    """A member that cannot be shown; the message says why."""


class LayerIndexer:
    """Takes a layer's members in order, then writes the index.

    In memory a member takes its name, one packed inode of some 80 bytes and one dictionary entry.
    """

    def __init__(self, created: int, created_ns: int) -> None:
        """Give directories that nothing lists the time *created*, seconds and nanoseconds."""
        self._created = (created, created_ns)
        self._inodes = bytearray()
        self._heap = bytearray()
        self._names: dict[bytes, int] = {}
        self._last: tuple[bytes, int] = (b"", 0)
        self._lower_links = 0
        self.skipped = 0
        self.first_skipped = ""
        self._new_directory(None)

    def add(self, tar: Source, member: Member) -> None:
        """Take one member; what cannot be shown is counted."""
        try:
            self._add(tar, member)
        except (Skipped, BrokenHeader) as error:
            self._skip(member, error)

    def _add(self, tar: Source, member: Member) -> None:
        parts = _parts(member.name)
        match member.kind:
            case Kind.PAX_GLOBAL:
                pass
            case Kind.OTHER:
                msg = "a member of an unknown type"
                raise Skipped(msg)
            case Kind.DIRECTORY:
                self._directory(parts, self._attributes(member))
            case _ if not parts:
                msg = f"a {member.kind.value} in the place of the root"
                raise Skipped(msg)
            case Kind.HARD_LINK:
                self._link(parts, member)
            case _:
                self._file(tar, parts, member)

    def _attributes(self, member: Member) -> FileAttributes:
        """Return the attributes of *member*, without extended ones that the kernel does not take."""
        attributes = file_attributes(member)
        listable = listable_xattrs(attributes.xattrs)
        if len(listable) < len(attributes.xattrs):
            self._skip(member, "extended attributes of more than 64 KiB")
        return attributes._replace(xattrs=listable)

    def _skip(self, member: Member, why: object) -> None:
        if not self.skipped:
            self.first_skipped = f"{printable(member.name[:300])}: {why}"
        self.skipped += 1

    def _directory(self, parts: list[bytes], attributes: FileAttributes) -> None:
        there = self._find(parts)
        if there is not None and stat.S_ISDIR(self._mode(there)):
            self._set(there, attributes)
            return
        self._names[_KEY.pack(self._parent(parts)) + parts[-1]] = self._new_directory(attributes)
        self._last = (b"", 0)

    def _file(self, tar: Source, parts: list[bytes], member: Member) -> None:
        text, offset, size, flags = b"", member.offset, member.size, 0
        if member.kind is Kind.SYMLINK:
            text, size = _target(member.link), len(member.link)
        elif member.sparse:
            size, runs = sparse_runs(member, tar.read_at)
            text, flags = b"".join(RUN.pack(*run) for run in runs), SPARSE
        inode = self._new(self._attributes(member), offset, size, flags, text)
        self._replace(_KEY.pack(self._parent(parts)) + parts[-1], inode)

    def _link(self, parts: list[bytes], member: Member) -> None:
        target = _parts(member.link)
        if not target:
            msg = "a hard link to the root"
            raise Skipped(msg)
        inode = self._find(target)
        if inode is not None and stat.S_ISDIR(self._mode(inode)):
            msg = "a hard link to a directory"
            raise Skipped(msg)
        parent = self._parent(parts)
        if inode is None:
            # Its attributes are those of the file below, so none are kept.
            nothing = FileAttributes(stat.S_IFREG, 0, 0, 0, 0, 0, 0, ())
            inode = self._new(nothing, 0, 0, LOWER_LINK, b"/".join(target))
            self._lower_links += 1
        self._replace(_KEY.pack(parent) + parts[-1], inode)

    def _replace(self, key: bytes, inode: int) -> None:
        there = self._names.get(key)
        if there is not None and stat.S_ISDIR(self._mode(there)):
            self._last = (b"", 0)  # a directory goes, with what is below it
        self._names[key] = inode

    def _parent(self, parts: list[bytes]) -> int:
        """Return the inode of the directory that *parts* lie in; it is made where there is none."""
        path = b"/".join(parts[:-1])
        if path == self._last[0]:
            return self._last[1]
        inode = 0
        for part in parts[:-1]:
            key = _KEY.pack(inode) + part
            below = self._names.get(key)
            if below is None or not stat.S_ISDIR(self._mode(below)):
                below = self._names[key] = self._new_directory(None)
            inode = below
        self._last = (path, inode)
        return inode

    def _find(self, parts: list[bytes]) -> int | None:
        inode: int | None = 0
        for part in parts:
            if inode is None or not stat.S_ISDIR(self._mode(inode)):
                return None
            inode = self._names.get(_KEY.pack(inode) + part)
        return inode

    def _new_directory(self, attributes: FileAttributes | None) -> int:
        flags = 0
        if attributes is None:
            attributes = FileAttributes(stat.S_IFDIR | 0o755, 0, 0, *self._created, 0, 0, ())
            flags = IMPLICIT
        return self._new(attributes, 0, 0, flags, b"")

    def _new(self, attributes: FileAttributes, offset: int, size: int, flags: int, text: bytes) -> int:
        number = len(self._inodes) // _INODE.size
        self._inodes += self._packed(attributes, offset, size, flags, text)
        return number

    def _set(self, inode: int, attributes: FileAttributes) -> None:
        """Give a directory that is there other attributes."""
        packed = self._packed(attributes, 0, 0, 0, b"")
        self._inodes[inode * _INODE.size : (inode + 1) * _INODE.size] = packed

    def _packed(self, attributes: FileAttributes, offset: int, size: int, flags: int, text: bytes) -> bytes:
        text_offset = len(self._heap)
        self._heap += text
        xattr_offset = len(self._heap)
        for name, value in attributes.xattrs:
            self._heap += XATTR.pack(len(name), len(value)) + name + value
        return _INODE.pack(
            offset, size, attributes.mtime, attributes.mtime_ns, attributes.mode, attributes.uid, attributes.gid,
            attributes.major, attributes.minor, flags, len(text), len(self._heap) - xattr_offset, text_offset,
            xattr_offset,
        )  # fmt: skip

    def _mode(self, inode: int) -> int:
        return int.from_bytes(self._inodes[inode * _INODE.size + 28 : inode * _INODE.size + 32], "little")

    def write(self, file: BinaryIO) -> None:
        """Write the index to *file*, from its beginning."""
        keys = sorted(self._names)
        order, spans = self._order(keys)
        first_name = array("I", [_NONE]) * (len(self._inodes) // _INODE.size)
        names = array("I", [0]) * len(first_name)
        for record, at in enumerate(order, 1):
            inode = self._names[keys[at]]
            names[inode] += 1
            if first_name[inode] == _NONE:
                first_name[inode] = record
        first_name[0], names[0] = 0, 1
        heap = len(self._heap)
        self._mark_whiteouts_only(keys, order, spans)
        file.write(HEADER.pack(MAGIC, len(order) + 1, HEADER.size + (len(order) + 1) * RECORD.size, self._lower_links))
        file.write(self._record(0, (heap, 0), (0, *spans[0]), (0, 1)))
        parents = self._parents(order, spans)
        for record, at in enumerate(order, 1):
            key = keys[at]
            inode = self._names[key]
            name = (heap, len(key) - _KEY.size)
            tree = (parents[record], *spans.get(record, (0, 0)))
            file.write(self._record(inode, name, tree, (first_name[inode], names[inode])))
            heap += len(key) - _KEY.size
        file.write(self._heap)
        for at in order:
            file.write(keys[at][_KEY.size :])
        file.flush()

    @staticmethod
    def _starts(keys: list[bytes]) -> dict[bytes, tuple[int, int]]:
        """Return for each directory where its keys begin and end."""
        cuts = [0, *(n for n, (one, next_) in enumerate(pairwise(keys), 1) if one[:4] != next_[:4]), len(keys)]
        return {keys[begin][:4]: (begin, end) for begin, end in pairwise(cuts) if begin < end}

    def _order(self, keys: list[bytes]) -> tuple["array[int]", dict[int, tuple[int, int]]]:
        """Return the keys breadth first, as places in *keys*, and each directory's first record and number of them."""
        starts = self._starts(keys)
        order = array("I")
        spans: dict[int, tuple[int, int]] = {}
        queue = [(0, 0)]  # record, inode: grows while it is walked
        for record, inode in queue:
            begin, end = starts.get(_KEY.pack(inode), (0, 0))
            spans[record] = (len(order) + 1, end - begin)
            for at in range(begin, end):
                order.append(at)
                below = self._names[keys[at]]
                if stat.S_ISDIR(self._mode(below)):
                    queue.append((len(order), below))
        return order, spans

    def _mark_whiteouts_only(self, keys: list[bytes], order: "array[int]", spans: dict[int, tuple[int, int]]) -> None:
        """Mark the implicit directories with nothing but whiteouts below, the deepest first."""
        for record in reversed(spans):
            inode = self._names[keys[order[record - 1]]] if record else 0
            at = inode * _INODE.size + _FLAGS_AT
            if record == 0 or not self._inodes[at] & IMPLICIT:
                continue
            first, count = spans[record]
            below = (keys[order[child - 1]] for child in range(first, first + count))
            if all(
                key.startswith(WHITEOUT, _KEY.size)
                or self._inodes[self._names[key] * _INODE.size + _FLAGS_AT] & ONLY_WHITEOUTS
                for key in below
            ):
                self._inodes[at] |= ONLY_WHITEOUTS

    def _stored_blocks(self, flags: int, offset: int, length: int) -> int:
        if not flags & SPARSE:
            return 0
        stored: int = sum(size for _, _, size in RUN.iter_unpack(self._heap[offset : offset + length]))
        return min(-(-stored // 512), _NONE)

    @staticmethod
    def _parents(order: "array[int]", spans: dict[int, tuple[int, int]]) -> "array[int]":
        parents = array("I", [0]) * (len(order) + 1)
        for directory, (first, count) in spans.items():
            for record in range(first, first + count):
                parents[record] = directory
        return parents

    def _record(self, inode: int, name: tuple[int, int], tree: tuple[int, int, int], names: tuple[int, int]) -> bytes:
        """Return the record of an *inode* under a *name*.

        *name*: its offset in the heap and length.  *tree*: the parent's record, and of a directory
        the first entry's record and their number.  *names*: the record of the inode's first name, and
        how many names it has.
        """
        (
            offset, size, mtime, mtime_ns, mode, uid, gid, major, minor, flags, text_length, xattr_length, text_offset,
            xattr_offset,
        ) = _INODE.unpack_from(self._inodes, inode * _INODE.size)  # fmt: skip
        return RECORD.pack(
            name[0], offset, size, mtime, mtime_ns, mode, uid, gid, major, minor, *tree, *names, xattr_length, flags,
            name[1], text_length, self._stored_blocks(flags, text_offset, text_length), text_offset, xattr_offset,
        )  # fmt: skip


def _parts(path: bytes) -> list[bytes]:
    """Return the components of *path*; Skipped if one of them would spoil a listing or lead out."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
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
    for member in scan(tar, warnings.append):
        indexer.add(tar, member)
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
