"""Writes a file or a directory of an image as a tar in PAX format."""

import os
import stat
from collections.abc import Iterator

from fusefs.content.protocol import Bytes, Content
from fusefs.copying.copied import Copied
from fusefs.copying.source import Source, checked_name, stored_bytes, stored_runs
from fusefs.tar.header import BLOCK
from fusefs.tar.writing import HeaderFields, member_header
from fusefs.tree.node import RegularFile, Special, Symlink
from fusefs.tree.walk import PathNode, walk

_END = bytes(20 * BLOCK)
"""Two blocks of zeros mark the end; as many as a record of tar(1) has fill the last one."""
_TYPES = {stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}
_NANO = 10**9


class Tarball:
    """The tar of *source*: its names begin with that of the source, or ``.`` for what is in a directory."""

    def __init__(self, source: Source) -> None:
        self._tree = source.tree
        self._source = source
        self._links: dict[int, bytes] = {}
        """The first names of files with several."""
        self.copied = Copied("")

    def parts(self) -> Iterator[Bytes]:
        """Yield the bytes of the tar; OSError if the image cannot be read."""
        top = self._source.top
        name = self._source.name or b"."
        if self._source.is_directory:
            skipped = len(top.path.rstrip(b"/"))
            for directory, entries in walk(self._tree, top):
                above = name + directory.path[skipped:].rstrip(b"/") + b"/"
                yield self._directory(directory, above)
                for entry in entries:
                    if not stat.S_ISDIR(self._tree.stat(entry.number).mode):
                        yield from self._member(entry, above + checked_name(entry.name))
        else:
            yield from self._member(top, name)
        yield _END

    def _directory(self, directory: PathNode, name: bytes) -> bytes:
        self._count("directories")
        return self._header(directory, HeaderFields(name, b"5"))

    def _member(self, file: PathNode, name: bytes) -> Iterator[Bytes]:
        status = self._tree.stat(file.number)
        if stat.S_ISSOCK(status.mode):
            self.copied.skip(file.path, "a tar cannot have sockets")
            return
        if status.nlink > 1:
            first = self._links.setdefault(file.number, name)
            if first is not name:
                self._count("files")
                yield self._header(file, HeaderFields(name, b"1", first))
                return
        node = self._tree.node(file.number)
        match node:
            case RegularFile():
                self._count("files")
                yield from self._regular(file, name, node.content)
            case Symlink():
                self._count("links")
                yield self._header(file, HeaderFields(name, b"2", node.target))
            case Special():
                self._count("others")
                yield self._header(
                    file, HeaderFields(name, _TYPES[node.type], major=os.major(node.rdev), minor=os.minor(node.rdev))
                )
            case _:
                raise AssertionError(node)

    def _regular(self, file: PathNode, name: bytes, content: Content) -> Iterator[Bytes]:
        size, beginning = content.size, b""
        records: list[tuple[bytes, bytes]] = []
        runs = stored_runs(content)
        if sum(run.size for _, run in runs) < size:  # GNU tar's format of sparse files, version 1.0
            pairs = [(offset, run.size) for offset, run in runs]
            pairs += [(content.size, 0)]
            beginning = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
            beginning += bytes(-len(beginning) % BLOCK)
            size = len(beginning) + sum(run.size for _, run in runs)
            records += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name)]
            records += [(b"GNU.sparse.realsize", b"%d" % content.size)]
            name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2]
        yield self._header(file, HeaderFields(name, b"0", size=size), records)
        yield beginning
        for _, data in stored_bytes(content):
            self.copied.size += len(data)
            yield data
        yield bytes(-size % BLOCK)

    def _header(self, file: PathNode, fields: HeaderFields, records: list[tuple[bytes, bytes]] | None = None) -> bytes:
        status = self._tree.stat(file.number)
        records = [*(records or [])]
        seconds, fraction = divmod(status.mtime_ns, _NANO)
        if fraction or seconds < 0:
            records.append((b"mtime", _decimal(status.mtime_ns)))
            seconds = max(0, seconds)
        fields = fields._replace(mode=stat.S_IMODE(status.mode), uid=status.uid, gid=status.gid, mtime=seconds)
        xattrs = [(name, value) for name, value in self._tree.xattrs(file.number) if b"=" not in name]
        return member_header(fields, xattrs, records)

    def _count(self, kind: str) -> None:
        setattr(self.copied, kind, getattr(self.copied, kind) + 1)


def _decimal(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    return b"%s%d.%09d" % (sign, *divmod(abs(nanoseconds), _NANO))
