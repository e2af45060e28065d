"""A content that is no local file is a layer like any other."""

import os
from pathlib import Path

import pytest

from fusefs.cache.store import Cache
from fusefs.content.protocol import Literal, Slice
from fusefs.image.indexing import CHILD_SIZE
from fusefs.image.lazy_layers import Layers
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerTree
from fusefs.tar.compression import Compression
from tests.support.changesets import changeset, everything, file, layer_of, rootfs_of
from tests.support.conformance import check_reads, closing_what_is_opened
from tests.support.mounts import Bench
from tests.support.own_views import mounted
from tests.support.remote_content import BASE, DATA, SPARSE, TOP, RemoteContent, remote_image


def reads(layer: object) -> int:
    """Return how many requests were made for a layer."""
    content = getattr(layer, "content", None)
    assert isinstance(content, RemoteContent)
    return content.reads


@pytest.mark.parametrize("compression", [None, Compression.GZIP])
def test_remote_layers_are_the_same_trees_as_local_ones(tmp_path: Path, compression: Compression | None) -> None:
    image = remote_image(compression=compression)
    with closing_what_is_opened():
        files = Layers(image, str(tmp_path)).all_files()
        assert [everything(LayerTree(one, transform_symlinks=False)) for one in files] == [
            layer_of(BASE),
            layer_of(TOP),
        ]
        assert everything(RootfsTree(files, transform_symlinks=False)) == rootfs_of(BASE, TOP)


def test_nothing_of_a_remote_layer_is_read_before_the_first_access(tmp_path: Path) -> None:
    image = remote_image()
    layers = Layers(image, str(tmp_path))
    assert [reads(layer) for layer in image.layers] == [0, 0]
    layers.files(image.layers[1])
    assert reads(image.layers[0]) == 0
    assert 0 < reads(image.layers[1]) < 10


def test_a_large_remote_layer_is_indexed_here_since_a_child_cannot_read_it(tmp_path: Path) -> None:
    tar = changeset(file("large", bytes(CHILD_SIZE)), file("after", b"1"))
    image = remote_image([tar])
    (files,) = Layers(image, str(tmp_path)).all_files()
    assert everything(LayerTree(files, transform_symlinks=False)).keys() == {b"", b"large", b"after"}
    assert reads(image.layers[0]) < 30  # the bytes of the file are passed over


def test_the_index_of_a_remote_layer_is_cached_by_the_identity_of_its_bytes(tmp_path: Path) -> None:
    entry, _ = Cache(str(tmp_path / "cache")).archive("a")
    for identity, made in (("one", 1), ("one", 1), ("other", 2)):
        image = remote_image([TOP])
        content = RemoteContent(TOP, identity)
        image = image._replace(layers=(image.layers[0]._replace(content=content),))
        Layers(image, str(tmp_path), entry).all_files()
        cached = [name for name in os.listdir(entry.path) if name.endswith(".layer")]
        assert len(cached) == made


def test_a_mount_shows_remote_layers(imgfs: Bench) -> None:
    with mounted(imgfs, "remote") as mountpoint:
        assert sorted(os.listdir(mountpoint / "layers" / "0" / "d")) == ["data", "gone"]
        assert sorted(os.listdir(mountpoint / "layers" / "1" / "d")) == [".wh.gone"]
        assert sorted(os.listdir(mountpoint / "rootfs")) == ["d", "sparse", "top"]
        assert os.listdir(mountpoint / "rootfs" / "d") == ["data"]
        for tree in ("layers/0", "rootfs"):
            assert (mountpoint / tree / "d" / "data").read_bytes() == DATA
            assert (mountpoint / tree / "sparse").read_bytes() == SPARSE
        assert os.stat(mountpoint / "rootfs" / "sparse").st_blocks < len(SPARSE) // 512
        blobs = {path.read_bytes() for path in (mountpoint / "blobs" / "sha256").iterdir()}
        assert {BASE, TOP} <= blobs
    imgfs.nothing_left()


def test_a_slice_reads_as_its_part_and_says_so_when_that_is_cut() -> None:
    for content in (Literal(DATA), RemoteContent(DATA)):
        part = content.slice(100, 1000).slice(50, 500)
        assert (part.size, part.stored, part.file_place()) == (500, 500, None)
        assert part.read_at(0, 500) == DATA[150:650]
        assert part.read_at(490, 100) == DATA[640:650]
        assert part.read_at(600, 1) == b""
    check_reads(Slice(Literal(DATA), 10, 100))
    cut = Literal(DATA).slice(len(DATA) - 10, 11)
    for read in (cut.read_at, cut.read_cached):
        with pytest.raises(OSError, match=f"end before offset {len(DATA) + 1}"):
            read(0, 11)


def test_who_closes_a_slice_closes_the_content() -> None:
    content = RemoteContent(DATA)
    content.slice(0, 10).close()
    with pytest.raises(OSError, match="closed"):
        content.slice(5, 10).read_at(0, 1)
