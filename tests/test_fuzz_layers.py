"""Layers of random parts, honest, lying and damaged: an error of ours or a tree that can be read, in bounded work."""

import os
import random
import stat
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusefs.content import Extent, OpenFile
from fusefs.errors import ImgfsError
from fusefs.indexer import index_layer
from fusefs.layerindex import LayerIndex
from fusefs.layertree import LayerFiles, LayerTree
from fusefs.rootfs import RootfsTree
from fusefs.tree import Directory, RegularFile, Symlink, Tree
from tests.builders import CREATED_NS, Memory
from tests.conftest import TakeWarnings
from tests.fuzzing import HONEST, LYING, archive, damaged

RANDOM = st.randoms(use_true_random=False)


@pytest.fixture(autouse=True)
def warnings_are_printable(take_warnings: TakeWarnings) -> Iterator[None]:
    """Hard links to nothing and the like are warned of: that is right, whatever is in it."""
    yield
    assert all(warning.isprintable() for warning in take_warnings())


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
        assert tree.find(number, b"not there") is None
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
            assert str(error).startswith("layer: ")
            assert str(error).isprintable()
            return None
        finally:
            # Every header once, a little more for long names and maps; none of it twice.
            assert source.reads <= 4 * (len(data) // 512 + 4)
            assert source.bytes_read <= 8 * len(data) + (1 << 21)
    assert all(warning.isprintable() for warning in warnings)
    assert os.fstat(file).st_size <= 20 * len(data) + 4096
    tar = OpenFile(os.memfd_create("layer", os.MFD_CLOEXEC), "layer")
    descriptors.append(tar.descriptor)
    os.write(tar.descriptor, data)
    return LayerFiles(LayerIndex(file), Extent(tar, 0, len(data)))


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
        return len(found)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@given(rng=RANDOM)
@settings(max_examples=1000, derandomize=True, suppress_health_check=[*HealthCheck], deadline=None)
def test_lying_layers_are_refused_or_can_be_walked(rng: random.Random) -> None:
    check([archive(rng, LYING) for _ in range(rng.randint(1, 3))])


@given(rng=RANDOM)
@settings(max_examples=1000, derandomize=True, suppress_health_check=[*HealthCheck], deadline=None)
def test_damaged_layers_are_refused_or_can_be_walked(rng: random.Random) -> None:
    check([damaged(archive(rng, HONEST), rng) for _ in range(rng.randint(1, 3))])


CORPUS = range(4000)
"""Seeds that every run replays: the same archives each time, on every machine."""


@pytest.mark.parametrize("start", range(0, len(CORPUS), 1000))
def test_the_corpus_is_refused_or_can_be_walked(start: int) -> None:
    accepted = 0
    for seed in CORPUS[start : start + 1000]:
        rng = random.Random(seed)
        data = archive(rng, LYING)
        accepted += check([damaged(data, rng) if seed % 2 else data])
    assert 200 < accepted < 800, "the corpus is no mixture"


@pytest.mark.parametrize("seed", range(0, 1000, 50))
def test_honest_layers_are_all_accepted(seed: int) -> None:
    assert check([archive(random.Random(seed), HONEST)]) == 1
