"""Layer tars of the tests, member by member, and what a tree of them shows as plain values."""

import base64
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from fusefs.content.file import Extent, OpenFile
from fusefs.layers.index import LayerIndex
from fusefs.layers.indexer import index_layer
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.tar.members import ContentSource
from fusefs.tree.node import Directory, RegularFile, Special, Symlink, Tree
from tests.support.builders import BLOCK, CREATED_NS, END, extended, header, padded, pax_record, resealed

Name = str | bytes
Runs = Sequence[tuple[int, bytes]]
"""What is stored of a sparse file: offset and bytes."""


class About(NamedTuple):
    """What a member says of its file besides its bytes.  What the header cannot say goes into PAX records."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: Mapping[bytes, bytes] = {}
    """Written as star does: ``SCHILY.xattr``."""
    libarchive: Mapping[bytes, bytes] = {}
    """Written as libarchive does: ``LIBARCHIVE.xattr``."""
    records: Mapping[bytes, bytes] = {}
    """More PAX records."""


FILE = About()
FOLDER = About(mode=0o755)


def changeset(*members: bytes) -> bytes:
    """Return the tar of a layer."""
    return b"".join(members) + END


def member(
    name: Name, typeflag: bytes, about: About = FILE, *, target: Name = b"", data: bytes = b"", size: int | None = None
) -> bytes:
    """Return a member of any kind; long names, times with a fraction and the like as PAX or GNU extensions."""
    name, target = _bytes(name), _bytes(target)
    seconds, fraction = divmod(about.mtime_ns, 10**9)
    records: list[tuple[bytes, bytes]] = []
    if fraction:
        sign, (whole, rest) = (b"-", divmod(-about.mtime_ns, 10**9)) if seconds < 0 else (b"", (seconds, fraction))
        records.append((b"mtime", b"%s%d.%09d" % (sign, whole, rest)))
    records += [(b"SCHILY.xattr." + key, value) for key, value in about.xattrs.items()]
    records += [
        (b"LIBARCHIVE.xattr." + quote_from_bytes(key).encode(), base64.b64encode(value).rstrip(b"="))
        for key, value in about.libarchive.items()
    ]
    records += about.records.items()
    before = extended(b"x", pax_records(records)) if records else b""
    if len(name) > 100:
        before += extended(b"L", name + b"\0")
    if len(target) > 100:
        before += extended(b"K", target + b"\0")
    block = header(name, len(data) if size is None else size, typeflag, target, mode=about.mode)
    owner = _number(about.uid, 8) + _number(about.gid, 8)
    block = resealed(block, 108, owner + block[124:136] + _number(seconds, 12))
    return before + block + padded(data)


def pax_records(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return PAX records whose keywords are bytes."""
    return b"".join(pax_record(key.decode("latin-1"), value) if key.isascii() else _raw(key, value)
                    for key, value in records)  # fmt: skip


def _raw(key: bytes, value: bytes) -> bytes:
    record = pax_record("k" * len(key), value)
    return record.replace(b"k" * len(key) + b"=", key + b"=", 1)


def _number(value: int, length: int) -> bytes:
    if 0 <= value < 8 ** (length - 1):
        return b"%0*o\0" % (length - 1, value)
    raw = bytearray((value % (1 << (8 * length))).to_bytes(length, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def _bytes(name: Name) -> bytes:
    return name.encode() if isinstance(name, str) else name


def file(name: Name, data: bytes = b"", about: About = FILE) -> bytes:
    """Return a regular file."""
    return member(name, b"0", about, data=data)


def folder(name: Name, about: About = FOLDER) -> bytes:
    """Return a directory."""
    return member(name, b"5", about)


def symlink(name: Name, target: Name, about: About = About(mode=0o777)) -> bytes:  # noqa: B008 - a tuple
    """Return a symbolic link."""
    return member(name, b"2", about, target=target)


def hard_link(name: Name, target: Name, about: About = FILE) -> bytes:
    """Return a hard link."""
    return member(name, b"1", about, target=target)


def fifo(name: Name, about: About = FILE) -> bytes:
    """Return a named pipe."""
    return member(name, b"6", about)


def device(name: Name, kind: str, major: int, minor: int, about: About = FILE) -> bytes:
    """Return a device, *kind* c or b."""
    raw = member(name, {"c": b"3", "b": b"4"}[kind], about)
    at = len(raw) - BLOCK
    return raw[:at] + resealed(raw[at:], 329, _number(major, 8) + _number(minor, 8))


def whiteout(path: str) -> bytes:
    """Return the whiteout of *path*, an empty file."""
    directory, _, name = path.rpartition("/")
    return file(f"{directory}/.wh.{name}" if directory else f".wh.{name}")


def opaque(directory: str = "") -> bytes:
    """Return the marker that makes *directory* opaque."""
    return file(f"{directory}/.wh..wh..opq" if directory else ".wh..wh..opq")


def gnu_sparse(name: Name, size: int, runs: Runs, *, pairs: Sequence[tuple[int, int]] | None = None) -> bytes:
    """Return a sparse file as GNU tar wrote it first: four entries in the header, 21 in each block after it.

    *pairs* is what the map says if that is not what the runs are.
    """
    stored = b"".join(data for _, data in runs)
    entries = [_number(at, 12) + _number(length, 12) for at, length in pairs or _pairs(runs)]
    more = [b"".join(entries[at : at + 21]) for at in range(4, len(entries), 21)]
    blocks = b"".join(
        part.ljust(504, b"\0") + (b"\0" if number == len(more) else b"\1").ljust(8, b"\0")
        for number, part in enumerate(more, 1)
    )
    block = header(name, len(stored), b"S", magic=b"ustar  \0")
    fields = b"".join(entries[:4]).ljust(96, b"\0") + (b"\1" if more else b"\0") + _number(size, 12)
    return resealed(block, 386, fields) + blocks + padded(stored)


def pax_sparse(
    version: str, name: Name, size: int, runs: Runs, *, pairs: Sequence[tuple[int, int]] | None = None
) -> bytes:
    """Return a sparse file as PAX format *version* 0.0, 0.1 or 1.0 has it."""
    stored = b"".join(data for _, data in runs)
    numbers = [b"%d" % number for pair in pairs or _pairs(runs) for number in pair]
    stand_in = b"GNUSparseFile.0/" + _bytes(name)[:80]
    if version == "0.0":
        keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % (len(numbers) // 2))]
        records += [(keys[at % 2], number) for at, number in enumerate(numbers)]
        stand_in = _bytes(name)
    elif version == "0.1":
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % (len(numbers) // 2))]
        records += [(b"GNU.sparse.map", b",".join(numbers)), (b"GNU.sparse.name", _bytes(name))]
    else:
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", _bytes(name))]
        records.append((b"GNU.sparse.realsize", b"%d" % size))
        stored = padded(b"%d\n" % (len(numbers) // 2) + b"".join(number + b"\n" for number in numbers)) + stored
    return extended(b"x", pax_records(records)) + member(stand_in, b"0", data=stored)


def _pairs(runs: Runs) -> list[tuple[int, int]]:
    return [(at, len(data)) for at, data in runs]


class Seen(NamedTuple):
    """All that a tree says of one file."""

    type: int
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    rdev: int = 0
    nlink: int = 1
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    content: bytes = b""

    def with_(self, about: About) -> "Seen":
        """Return the same with the attributes of a member."""
        xattrs = dict(about.xattrs)
        return self._replace(
            mode=about.mode, uid=about.uid, gid=about.gid, mtime_ns=about.mtime_ns, xattrs=tuple(sorted(xattrs.items()))
        )


Shown = dict[bytes, Seen]
"""What a tree shows by path; the root's is empty."""


def a_file(content: bytes = b"", *, nlink: int = 1) -> Seen:
    """Return what `file` makes."""
    return Seen(stat.S_IFREG, size=len(content), content=content, nlink=nlink)


def a_symlink(target: bytes) -> Seen:
    """Return what `symlink` makes."""
    return Seen(stat.S_IFLNK, 0o777, size=len(target), target=target)


A_FOLDER = Seen(stat.S_IFDIR, 0o755)
"""What `folder` makes."""
IMPLICIT = Seen(stat.S_IFDIR, 0o755, mtime_ns=CREATED_NS)
"""A directory that nothing lists."""


def shown(*paths: tuple[str, Seen]) -> Shown:
    """Return what a tree shows below a root that nothing lists."""
    return {b"": IMPLICIT} | {path.encode(): seen for path, seen in paths}


class Indexed(NamedTuple):
    """A layer that was indexed."""

    files: LayerFiles
    warning: str | None


@contextmanager
def indexed(data: bytes, created_ns: int = CREATED_NS) -> Iterator[Indexed]:
    """Index the layer *data* of an image of that time, called ``layer`` in messages; both live in memory."""
    tar = OpenFile(os.memfd_create("layer", os.MFD_CLOEXEC), "layer")
    try:
        os.write(tar.descriptor, data)
        extent = Extent(tar, 0, len(data))
        with open(os.memfd_create("index", os.MFD_CLOEXEC), "wb") as index:
            warnings = index_layer(ContentSource(extent, "layer"), created_ns, index)
            yield Indexed(LayerFiles(LayerIndex(index.fileno()), extent), "\n".join(warnings) or None)
    finally:
        tar.close()


@contextmanager
def all_indexed(layers: Sequence[bytes], created_ns: int = CREATED_NS) -> Iterator[list[LayerFiles]]:
    """Index several *layers*, the base first; nothing may be skipped in them."""
    with ExitStack() as stack:
        all_of_them = [stack.enter_context(indexed(data, created_ns)) for data in layers]
        assert [layer.warning for layer in all_of_them] == [None] * len(layers)
        yield [layer.files for layer in all_of_them]


def layer_of(data: bytes, *, skipped: str | None = None, transform_symlinks: bool = False) -> Shown:
    """Return what the layer *data* shows by itself; *skipped* is the warning that it gives."""
    with indexed(data) as layer:
        assert layer.warning == skipped
        return everything(LayerTree(layer.files, transform_symlinks=transform_symlinks))


def rootfs_of(*layers: bytes, transform_symlinks: bool = False) -> Shown:
    """Return what *layers* show together, the base first; nothing may be skipped in them."""
    with all_indexed(layers) as files:
        return everything(RootfsTree(files, transform_symlinks=transform_symlinks))


def everything(tree: Tree) -> Shown:
    """Return all that a tree shows."""
    return {path: seen(tree, number) for path, number in numbers(tree).items()}


def numbers(tree: Tree) -> dict[bytes, int]:
    """Return the number at each path, directories before what is in them; without recursion."""
    found = {b"": 0}
    queue = [(b"", 0)]
    for path, number in queue:  # grows while it is walked
        for name, below in tree.listing(number):
            there = path + b"/" + name if path else name
            assert there not in found, "listed twice"
            found[there] = below
            if isinstance(tree.node(below), Directory):
                queue.append((there, below))
    return found


def seen(tree: Tree, number: int) -> Seen:
    """Return all that a tree says of one file."""
    node = tree.node(number)
    about = node.attributes
    kind, size, target, rdev, content = stat.S_IFDIR, 0, b"", 0, b""
    match node:
        case RegularFile():
            kind, size = stat.S_IFREG, node.content.size
            content = bytes(node.content.read_at(0, size)) if size < 1 << 26 else b"much"
        case Symlink():
            kind, size, target = stat.S_IFLNK, len(node.target), node.target
        case Special():
            kind, rdev = node.type, node.rdev
    return Seen(
        kind, about.permissions, about.uid, about.gid, size, about.mtime_ns, target, rdev, about.nlink,
        tuple(sorted(tree.xattrs(number))), content,
    )  # fmt: skip


def same_file(tree: Tree) -> set[frozenset[bytes]]:
    """Return the paths that are names of one file, where it has several."""
    groups: dict[int, set[bytes]] = {}
    for path, number in numbers(tree).items():
        groups.setdefault(number, set()).add(path)
    return {frozenset(paths) for paths in groups.values() if len(paths) > 1}
