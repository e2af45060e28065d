"""What has to hold for every layer, document and archive, whatever its bytes are: for the tests and for fuzzers."""

import gc
import os
import random
import stat
from collections.abc import Callable, Sequence

from fusefs.content.file import Extent, OpenFile
from fusefs.erofs.limits import Unfit
from fusefs.errors import ImgfsError
from fusefs.image.model import Image
from fusefs.layers.index import LayerIndex
from fusefs.layers.indexer import index_layer
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.oci import documents
from fusefs.sources import open_image
from fusefs.sources.archive.manifest_list import parse_manifest_list
from fusefs.tar.header import BLOCK, BrokenHeader, is_zero, pax_records
from fusefs.tree.node import Directory, KnownTree, LazyDirectory, RegularFile, Symlink, Tree
from tests.fuzz.random_archives import LYING, Random, archive, damaged
from tests.support import erofs_views
from tests.support.builders import CREATED_NS, END, Memory, extended, header, padded, resealed
from tests.support.conformance import SPOOLING, closing_what_is_opened, view_of

READ = 1 << 16
"""Bytes of a file that are looked at, at each end."""


def walk(tree: Tree, limit: int) -> int:
    """Ask a tree all that can be asked; return how many directories and files it has, *limit* at most."""
    queue = [0]
    seen = 0
    for number in queue:  # grows while it is walked
        names = set()
        for name, below in tree.listing(number):
            seen += 1
            assert seen <= limit, "more files than the archive has blocks"
            assert 0 < len(name) <= 255
            assert not {b"", b".", b".."} & {name}
            assert not set(b"/\0") & set(name)
            assert name not in names, "listed twice"
            names.add(name)
            assert tree.find(number, name) == below
            _check_node(tree, below)
            if isinstance(tree.node(below), Directory):
                assert tree.parent(below) == number
                queue.append(below)
        assert tree.size(number) >= 0
        assert tree.find(number, max(names, default=b"") + b"\xff") is None
    return seen


def _check_node(tree: Tree, number: int) -> None:
    node, said = tree.node(number), tree.stat(number)
    assert 0 <= said.uid < 1 << 32
    assert 0 <= said.gid < 1 << 32
    assert 0 <= said.size < 1 << 63
    assert -(1 << 93) < said.mtime_ns < 1 << 93
    for name, value in tree.xattrs(number):
        assert 0 < len(name) <= 255
        assert len(value) <= 1 << 16
    match node:
        case RegularFile():
            assert stat.S_ISREG(said.mode)
            assert node.content.size == said.size
            for offset in (0, max(0, said.size - READ)):
                assert len(node.content.read_at(offset, READ)) == min(READ, said.size - offset)
        case Symlink():
            assert 0 < len(node.target) < 4096
            assert b"\0" not in node.target


def index(data: bytes, descriptors: list[int]) -> LayerFiles | None:
    """Return the layer *data*, None if it is refused; *descriptors* are to be closed."""
    source = Memory(data, "layer")
    file = os.memfd_create("index", os.MFD_CLOEXEC)
    descriptors.append(file)
    with open(file, "wb", closefd=False) as out:
        try:
            warnings = index_layer(source, CREATED_NS, out)
        except ImgfsError as error:
            _check_message(error, "layer: ")
            return None
        finally:
            # Every header once, a little more for long names and maps; none of it twice.
            assert source.reads <= 4 * (len(data) // 512 + 4)
            assert source.bytes_read <= 8 * len(data) + (1 << 21)
    assert all(warning.isprintable() for warning in warnings)
    # A directory takes two bytes of a path, and some 110 of an index.
    assert os.fstat(file).st_size <= 64 * len(data) + 4096
    tar = OpenFile(os.memfd_create("layer", os.MFD_CLOEXEC), "layer")
    descriptors.append(tar.descriptor)
    os.write(tar.descriptor, data)
    return LayerFiles(LayerIndex(file), Extent(tar, 0, len(data)))


def _check_message(error: ImgfsError, beginning: str) -> None:
    """A message is one line that can be shown, of bounded length."""
    assert str(error).startswith(beginning)
    assert str(error).isprintable()
    assert len(str(error)) < 10 * 4096


def check(layers: Sequence[bytes]) -> int:
    """Index *layers* and walk each, and what they are together; return how many were accepted."""
    descriptors: list[int] = []
    try:
        found = [files for files in (index(data, descriptors) for data in layers) if files]
        # A member of a few blocks may have a path of a thousand directories.
        limit = sum(len(data) for data in layers) // 2 + 100
        for files in found:
            walk(LayerTree(files, transform_symlinks=True), limit)
        if found:
            walk(RootfsTree(found, transform_symlinks=False), limit)
            check_metadata(found)
        return len(found)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def check_metadata(files: Sequence[LayerFiles], *, transform_symlinks: bool = False) -> int:
    """Write layers as EROFS and compare what is read again; return the number of paths, 0 if they do not fit."""
    try:
        return len(erofs_views.check(erofs_views.stack_view(files, transform_symlinks=transform_symlinks)).erofs.shown)
    except Unfit as error:
        _check_message(error, "")
        return 0


class Chosen(random.Random):
    """Dice whose numbers a fuzzer chooses, byte by byte; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data

    def random(self) -> float:
        """Return a number below 1."""
        return self.getrandbits(16) / (1 << 16)

    def getrandbits(self, k: int) -> int:
        """Return *k* bits."""
        count = -(-k // 8)
        data, self._data = self._data[:count].ljust(count, b"\0"), self._data[count:]
        return int.from_bytes(data, "little") & ((1 << k) - 1)

    def _randbelow(self, n: int) -> int:  # in the place of a loop that might never end
        return self.getrandbits(max(1, (n - 1).bit_length())) % n


def _sealed(data: bytes) -> bytes:
    """Return *data* with a right checksum in each block that is not zero: else a fuzzer sees little but that."""
    blocks = (data[start : start + BLOCK].ljust(BLOCK, b"\0") for start in range(0, len(data), BLOCK))
    return b"".join(block if is_zero(block) else resealed(block, 0, b"") for block in blocks)


def check_documents(data: bytes) -> None:
    """Parse *data* as every document that there is."""
    parsers: tuple[Callable[[bytes, str], object], ...] = (
        parse_manifest_list,
        documents.parse_image_config,
        documents.parse_manifest,
        documents.parse_index,
        documents.check_layout,
        documents.media_type_of,
    )
    for parse in parsers:
        try:
            parse(data, "x")
        except ImgfsError as error:
            _check_message(error, "x")


def check_records(data: bytes) -> None:
    """Read *data* as PAX records, and as those of a file."""
    try:
        found = pax_records(data)
    except BrokenHeader:
        return
    assert sum(len(key) + len(value) for key, value in found.items()) <= len(data)
    check([extended(b"x", data) + header("name", 700) + padded(bytes(700)) + END])


def check_map(data: bytes) -> None:
    """Read *data* as the map of a sparse file in three formats."""
    stored = padded(data) + bytes(1024)
    one = extended(b"x", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n29 GNU.sparse.realsize=99999\n")
    block = header("gnu", 1024, b"S", magic=b"ustar  \0")
    old = resealed(block, 386, data[:96].ljust(96, b"\0") + data[96:97].ljust(1, b"\0") + b"00000303237\0")
    check(
        [
            one + header("one", len(stored)) + stored + END,
            old + padded(data[97:]) + bytes(1024) + END,
        ]
    )


def check_image(data: bytes) -> None:
    """Open *data* as an archive, and look at all that it shows."""
    with closing_what_is_opened():
        file = os.memfd_create("image", os.MFD_CLOEXEC)
        os.write(file, data)
        try:
            _check_view(open_image(f"/proc/self/fd/{file}", SPOOLING).image, 2 * len(data) + 100)
        except ImgfsError as error:
            _check_message(error, "")
        gc.collect(1)  # a mapping closes a descriptor of its own when it goes


def _check_view(image: Image, limit: int) -> None:
    for descriptor, content in image.blobs():
        assert content.size == descriptor.size
        for offset in (0, max(0, content.size - READ)):
            assert len(content.read_at(offset, READ)) == min(READ, content.size - offset)
    folders: list[tuple[Tree, int]] = [(KnownTree(view_of(image)), 0)]
    for tree, number in folders:  # grows while it is walked
        if not isinstance(tree, KnownTree):
            walk(tree, limit)
            continue
        for _, below in tree.listing(number):
            node = tree.node(below)
            if isinstance(node, Directory):
                folders.append((tree, below))
            elif isinstance(node, LazyDirectory):
                try:
                    folders.append((node.fill(), 0))
                except ImgfsError as error:
                    _check_message(error, "")
    try:
        erofs_views.check(view_of(image))
    except ImgfsError as error:
        _check_message(error, "")


def _any_tar(data: bytes) -> None:
    check([data])


def _sealed_tar(data: bytes) -> None:
    check([_sealed(data)])


def _stack(data: bytes) -> None:
    rng: Random = Chosen(data)
    check([archive(rng, LYING) for _ in range(rng.randint(1, 3))])


def _damaged_stack(data: bytes) -> None:
    rng: Random = Chosen(data)
    check([damaged(archive(rng, LYING), rng) for _ in range(rng.randint(1, 2))])


TARGETS: tuple[Callable[[bytes], None], ...] = (
    _any_tar,
    _sealed_tar,
    _stack,
    _damaged_stack,
    check_documents,
    check_records,
    check_map,
    check_image,
)


def one_input(data: bytes) -> None:
    """Do with *data* what its first byte says."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])
