"""An image's layers, made at the first need of them: by whom, how often, and what goes wrong."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fusefs.content.file import Extent
from fusefs.content.growing import report
from fusefs.errors import InvalidImage, NoSpace
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import Image, Layer
from fusefs.layers.index import LayerIndex
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.oci.digest import Digest
from fusefs.oci.documents import DOCKER_LAYER, Descriptor
from fusefs.tar.compression import Compression
from tests.conftest import TakeWarnings
from tests.support.builders import COMPRESSIONS, CREATED_NS
from tests.support.changesets import Shown, a_file, changeset, everything, file, shown
from tests.support.conformance import SOURCE
from tests.support.images import LARGE, image_of

SMALL = changeset(file("d/a", b"1"), file("x"))


def shown_by(files: LayerFiles) -> Shown:
    """Return what a layer shows by itself."""
    return everything(LayerTree(files, transform_symlinks=False))


def records(files: LayerFiles) -> bytes:
    """Return the bytes of an index."""
    return files.index._data


def test_layers_are_indexed_where_they_lie_in_the_image(tmp_path: Path) -> None:
    with image_of(SMALL, changeset(file("y", b"22"))) as image:
        layers = Layers(image, str(tmp_path))
        assert [shown_by(layers.files(layer)) for layer in image.layers] == [
            shown(("x", a_file()), ("d/a", a_file(b"1"))) | {b"d": shown_by(layers.files(image.layers[0]))[b"d"]},
            shown(("y", a_file(b"22"))),
        ]
    assert os.listdir(tmp_path) == []


def test_the_largest_layers_begin_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusefs.image.lazy_layers._WORKERS", 1)
    monkeypatch.setattr("fusefs.image.lazy_layers._FETCHES", 1)
    begun = list[Layer]()
    with image_of(SMALL, changeset(file("y", b"2" * 5000)), changeset(file("z", b"3" * 20_000))) as image:
        layers = Layers(image, str(tmp_path))
        found = layers.all_files(begun.append)
        assert begun == [image.layers[2], image.layers[1], image.layers[0]]
        assert found == [layers.files(layer) for layer in image.layers]


def test_a_large_layer_is_indexed_by_a_child_to_the_same_index(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with image_of(SMALL, LARGE) as image:
        layers = Layers(image, str(tmp_path))
        files = layers.files(image.layers[1])
        found = shown_by(files)
        assert (found[b"large"].size, found[b"d/b"], found[b".wh.x"]) == (16 << 20, a_file(b"2"), a_file())
        assert set(everything(RootfsTree(layers.all_files(), transform_symlinks=False))) == {
            b"", b"d", b"d/a", b"d/b", b"large"
        }  # fmt: skip
        child = index_in_child(image.layers[1])
        assert (child.returncode, child.stdout, child.stderr) == (0, b"0\n", b"")
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_what_a_child_skips_is_warned_of_once(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    with image_of(changeset(file("large", bytes(16 << 20)), file(".wh."), file("\x1b/.wh.."))) as image:
        layers = Layers(image, str(tmp_path))
        assert set(shown_by(layers.files(image.layers[0]))) == {b"", b"large"}
        layers.files(image.layers[0])
    assert take_warnings() == [
        "layer 0: skipped 2 members that cannot be shown; the first: .wh.: a whiteout without a name"
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 16 << 20], ids=["in a thread", "in a child"])
def test_a_layer_without_its_end_is_warned_of_by_whoever_indexes_it(
    tmp_path: Path, take_warnings: TakeWarnings, size: int
) -> None:
    with image_of(file("large", bytes(size))) as image:
        assert set(shown_by(Layers(image, str(tmp_path)).files(image.layers[0]))) == {b"", b"large"}
    assert take_warnings() == ["layer 0: the end of the archive is not marked; all its members are complete"]


@pytest.mark.parametrize("size", [0, 16 << 20], ids=["in a thread", "in a child"])
def test_a_corrupt_layer_is_an_invalid_image_every_time_with_a_message_of_one_line(
    tmp_path: Path, take_warnings: TakeWarnings, size: int
) -> None:
    data = file("large", bytes(size)) + bytes(512) + file("x") + b"garbage".ljust(512, b"!")
    with image_of(data) as image:
        layers = Layers(image, str(tmp_path))
        messages = []
        for _ in range(3):
            with pytest.raises(InvalidImage) as caught:
                layers.files(image.layers[0])
            messages.append(str(caught.value))
        take_warnings()
    expected = f"layer 0: damaged: no tar header at offset {len(data) - 512}: the checksum does not match"
    assert messages == [expected] * 3
    assert os.listdir(tmp_path) == []


def test_a_corrupt_layer_leaves_the_others_readable_but_not_the_rootfs(tmp_path: Path) -> None:
    with image_of(SMALL, b"garbage" * 100, SMALL + b"") as image:
        layers = Layers(image, str(tmp_path))
        with pytest.raises(InvalidImage, match=r"^layer 1: not a tar archive: "):
            layers.all_files()
        assert set(shown_by(layers.files(image.layers[2]))) == {b"", b"d", b"d/a", b"x"}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["in a thread", "in a child"])
def test_without_a_directory_an_index_is_in_memory(tmp_path: Path, data: bytes) -> None:
    directory = tmp_path / "missing"
    with image_of(data) as image:
        assert b"d" in shown_by(Layers(image, str(directory)).files(image.layers[0]))
    assert not directory.exists()


def test_want_of_a_directory_for_a_plain_tar_is_no_space_and_the_next_access_tries_again(tmp_path: Path) -> None:
    directory = tmp_path / "later"
    with image_of(SMALL, compression=Compression.GZIP) as image:
        layers = Layers(image, str(directory))
        for _ in range(2):
            with pytest.raises(NoSpace, match=r"^cannot write in .*/later: No such file or directory"):
                layers.files(image.layers[0])
        directory.mkdir()
        assert b"d" in shown_by(layers.files(image.layers[0]))
        layers.close()
    assert os.listdir(directory) == []


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["in a thread", "in a child"])
def test_a_layer_is_indexed_once_however_many_threads_ask(tmp_path: Path, data: bytes) -> None:
    threads = 50
    barrier = Barrier(threads)

    def ask() -> LayerFiles:
        barrier.wait()
        return layers.files(image.layers[0])

    with image_of(data) as image, ThreadPoolExecutor(threads) as pool:
        layers = Layers(image, str(tmp_path))
        found = [future.result() for future in [pool.submit(ask) for _ in range(threads)]]
    assert len(set(map(id, found))) == 1


def test_a_repeated_layer_is_indexed_once(tmp_path: Path) -> None:
    with image_of(SMALL, LARGE, SMALL) as image:
        layers = Layers(image, str(tmp_path))
        told: list[Layer] = []
        files = layers.all_files(told.append)
        assert files[0] is files[2]
        assert files[0] is layers.files(image.layers[2])
        assert sorted(layer.where for layer in told) == ["layer 0", "layer 1", "layer 2"]
        tree = RootfsTree(files, transform_symlinks=False)
        assert set(everything(tree)) == {b"", b"d", b"d/a", b"d/b", b"large", b"x"}


def test_a_compressed_layer_is_that_of_its_plain_tar(tmp_path: Path) -> None:
    with image_of(SMALL, compression=Compression.GZIP) as packed, image_of(SMALL) as plain:
        found = [Layers(image, str(tmp_path)).files(image.layers[0]) for image in (packed, plain)]
        assert shown_by(found[0]) == shown_by(found[1])
        assert records(found[0]) == records(found[1])


@pytest.mark.parametrize("compression", [None, *map(Compression, COMPRESSIONS)])
def test_a_layer_of_no_bytes_is_an_empty_layer(tmp_path: Path, compression: Compression | None) -> None:
    with image_of(b"", SMALL, b"", compression=compression) as image:
        layers = Layers(image, str(tmp_path))
        assert shown_by(layers.files(image.layers[0])) == shown()
        tree = RootfsTree(layers.all_files(), transform_symlinks=False)
        assert set(everything(tree)) == {b"", b"d", b"d/a", b"x"}


def test_a_layer_that_is_not_stored_or_no_file_system_s_is_not_readable(tmp_path: Path) -> None:
    with image_of(SMALL) as image:
        (stored,) = image.layers
        foreign = Layer(stored.diff_id, Descriptor(DOCKER_LAYER, 1, Digest.of([b"1"])), None, None, "foreign")
        artifact = Layer(None, Descriptor("text/plain", 1, Digest.of([b"2"])), stored.content, None, "artifact")
        document = image.config
        both = Image(SOURCE, "latest", None, 0, document, document, (stored, foreign, artifact))
        layers = Layers(both, str(tmp_path))
        assert [layers.readable(layer) for layer in both.layers] == [True, False, False]


def index_in_child(layer: Layer, *, stdin: int = subprocess.PIPE) -> "subprocess.CompletedProcess[bytes]":
    """Index *layer* by the program alone and return how it ended; its standard input stays open until then."""
    extent = layer.content
    assert isinstance(extent, Extent)
    index = os.memfd_create("index", os.MFD_CLOEXEC)
    try:
        places = [extent.file.descriptor, extent.offset, index, CREATED_NS]
        command = [sys.executable, "-m", "fusefs.layers.child", *map(str, places), layer.where]
        descriptors = (extent.file.descriptor, index)
        with subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=descriptors
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            if child.stdin is not None:
                child.stdin.write(report(extent.size, complete=True))
                child.stdin.flush()
            out, error = child.stdout.read(), child.stderr.read()
            child.wait()
        if not child.returncode:
            assert LayerIndex(index).count >= 1
        return subprocess.CompletedProcess(command, child.returncode, out, error)
    finally:
        os.close(index)


def test_the_child_ends_when_its_standard_input_does() -> None:
    with image_of(changeset(*(file(f"{number}") for number in range(30_000)))) as image:
        orphan = index_in_child(image.layers[0], stdin=subprocess.DEVNULL)
        assert (orphan.returncode, orphan.stdout, orphan.stderr) == (1, b"", b"")


@pytest.mark.parametrize(
    ("data", "status", "out"),
    [
        (SMALL, 0, b""),
        (changeset(file("a"), file("b/.wh.")), 0,
         b"layer 0: skipped 1 members that cannot be shown; the first: b/.wh.: a whiteout without a name\n"),
        (b"", 0, b""),
        (b"x", 5, b"layer 0: not a tar archive: it has 1 bytes, less than a header\n"),
        (file("a", bytes(600))[:600], 5, b"layer 0: truncated in a at offset 600: 88 of 600 bytes are there\n"),
    ],
)  # fmt: skip
def test_the_child_says_a_warning_or_an_error_and_its_status(data: bytes, status: int, out: bytes) -> None:
    with image_of(data) as image:
        child = index_in_child(image.layers[0])
    assert (child.returncode, child.stdout, child.stderr) == (status, out + b"%d\n" % status, b"")
