"""A compressed layer is decompressed, hashed and indexed in one pass."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fusefs.cache.store import Cache
from fusefs.content.pieces import FetchFailed
from fusefs.content.protocol import Bytes
from fusefs.content.remote import RemoteBlob
from fusefs.errors import DigestMismatch, InvalidImage, RegistryError
from fusefs.image.lazy_layers import Layers
from fusefs.image.model import Image, Layer
from fusefs.image.uncompressed import plain_chunks
from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.transport import REGISTRY
from tests.conftest import TakeWarnings
from tests.support.builders import COMPRESSIONS
from tests.support.changesets import changeset, file
from tests.support.conformance import closing_what_is_opened, literal_layer
from tests.support.images import image_of
from tests.support.processes import until
from tests.support.remote_content import RemoteContent
from tests.support.supplies import MemorySupply

NOISE = random.Random(5).randbytes(4 << 20)
LARGE = changeset(
    *(file(f"d/{number}", NOISE[number : number + 512]) for number in range(1000)),
    *(file(f"noise{number}", NOISE) for number in range(6)),
    file("last", b"last"),
)
"""More than a child process indexes; its compressed bytes are read in many pieces."""


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


def _children() -> list[str]:
    """Return the command lines of this process's children that index."""
    found: list[str] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):  # it has ended
            children = Path(f"/proc/self/task/{thread}/children").read_text().split()
            found.extend(Path(f"/proc/{child}/cmdline").read_text() for child in children)
    return [command for command in found if "fusefs.layers.child" in command]  # not the engines of other tests


class WatchingContent(RemoteContent):
    """Compressed bytes; the last of them arrive when a child process is there that indexes those before."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes."""
        if offset + size >= self.size:
            until(_children, "a child indexes")
        return super().read_at(offset, size)


def _image(*layers: Layer) -> Image:
    with image_of() as image:
        return image._replace(layers=layers)


def _files_of(layer: Layer, tmp_path: Path) -> bytes:
    layers = Layers(_image(layer), str(tmp_path))
    index = layers.files(layer).index._data
    layers.close()
    return index


def test_the_index_is_made_while_the_layer_is_decompressed(tmp_path: Path) -> None:
    layer = literal_layer(LARGE, compression="gzip")
    watching = layer._replace(content=WatchingContent(COMPRESSIONS["gzip"](LARGE)))
    assert _files_of(watching, tmp_path) == _files_of(literal_layer(LARGE), tmp_path)
    assert _children() == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_it_is_the_index_of_the_plain_layer(tmp_path: Path, compression: str) -> None:
    plain = _files_of(literal_layer(LARGE), tmp_path)
    assert _files_of(literal_layer(LARGE, compression=compression), tmp_path) == plain


def test_a_tar_that_was_decompressed_before_is_indexed_afterwards(tmp_path: Path) -> None:
    layer = literal_layer(LARGE, compression="gzip")
    layers = Layers(_image(layer), str(tmp_path))
    assert layers.tar(layer).size == len(LARGE)
    assert layers.files(layer).index._data == _files_of(literal_layer(LARGE), tmp_path)
    layers.close()


@pytest.mark.parametrize("damage", ["cut", "wrong", "lie"])
def test_damage_at_the_end_leaves_no_index_child_or_file(tmp_path: Path, damage: str) -> None:
    data = COMPRESSIONS["gzip"](LARGE)
    layer = literal_layer(LARGE, compression="gzip")
    error: type[Exception] = InvalidImage
    if damage == "lie":
        layer, error = layer._replace(diff_id=DiffID(Digest.of([b""]))), DigestMismatch
    else:
        layer = layer._replace(content=RemoteContent(data[:-1] if damage == "cut" else data[:-8] + bytes(8)))
    cache = Cache(str(tmp_path / "cache"))
    entry, _ = cache.archive("key")
    layers = Layers(_image(layer), str(tmp_path), entry)
    for _ in range(2):
        with pytest.raises(error):
            layers.files(layer)
    assert _children() == []
    assert os.listdir(entry.path) == []
    assert os.listdir(tmp_path) == ["cache"]


def test_a_tar_that_is_none_is_no_less_decompressed(tmp_path: Path) -> None:
    garbage = LARGE[: 17 << 20] + NOISE
    layer = literal_layer(garbage, compression="gzip")
    layers = Layers(_image(layer), str(tmp_path))
    with pytest.raises(InvalidImage, match=r"^somewhere: "):
        layers.files(layer)
    assert layers.tar(layer).size == len(garbage)
    layers.close()
    assert _children() == []


def test_a_plain_tar_that_exceeds_the_cache_is_followed_in_the_temporary_directory(tmp_path: Path) -> None:
    zeros = changeset(file("zeros", bytes(40 << 20)), file("last"))
    layer = literal_layer(zeros, compression="gzip")
    cache = Cache(str(tmp_path / "cache"), limit=20 << 20)
    entry, _ = cache.archive("key")
    layers = Layers(_image(layer), str(tmp_path), entry)
    assert layers.files(layer).index._data == _files_of(literal_layer(zeros), tmp_path)
    assert [name for name in os.listdir(entry.path) if ".tar" in name] == []
    assert [name for name in os.listdir(entry.path) if name.endswith(".layer")] != []
    layers.close()


def test_who_stops_reading_stops_the_decompression() -> None:
    content = RemoteContent(COMPRESSIONS["gzip"](NOISE * 8))
    layer = literal_layer(NOISE * 8, compression="gzip")._replace(content=content)
    threads = threading.active_count()
    reading = plain_chunks(layer)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    until(lambda: threading.active_count() == threads, "the thread ends")
    assert content.reads < 12


class StallingContent(RemoteContent):
    """Compressed bytes; all but the first of them arrive when `go` is set."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.go = threading.Event()

    def read_at(self, offset: int, size: int) -> Bytes:
        """Return the bytes."""
        if offset > 0:
            self.go.wait()
        return super().read_at(offset, size)


def test_who_stops_reading_does_not_wait_for_bytes_that_do_not_arrive() -> None:
    content = StallingContent(COMPRESSIONS["gzip"](NOISE))
    threads = threading.active_count()
    reading = plain_chunks(literal_layer(NOISE, compression="gzip")._replace(content=content))
    next(reading)
    closing = threading.Thread(target=reading.close)  # type: ignore[attr-defined]
    closing.start()
    closing.join(5)
    ended = not closing.is_alive()
    content.go.set()
    until(lambda: threading.active_count() == threads, "the thread ends")
    assert ended


def test_without_a_free_thread_it_is_decompressed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert b"".join(plain_chunks(literal_layer(NOISE, compression="gzip"))) == NOISE


def test_a_warning_of_the_child_is_logged(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    _files_of(literal_layer(LARGE[:-1024] + file("x/.wh.") + bytes(1024), compression="gzip"), tmp_path)
    assert take_warnings() == [
        "somewhere: skipped 1 members that cannot be shown; the first: x/.wh.: a whiteout without a name"
    ]


def _remote(layer: Layer, supply: MemorySupply) -> Layer:
    return layer._replace(content=RemoteBlob(len(supply.data), supply))


def test_the_index_is_made_while_a_layer_arrives_from_a_registry(tmp_path: Path) -> None:
    layer = literal_layer(LARGE, compression="gzip")
    supply = MemorySupply(COMPRESSIONS["gzip"](LARGE), step=1 << 16)

    def before(_start: int, end: int) -> None:
        if end == len(supply.data):
            until(_children, "a child indexes")

    supply.before = before
    assert _files_of(_remote(layer, supply), tmp_path) == _files_of(literal_layer(LARGE), tmp_path)
    assert supply.asked == [(0, len(supply.data))]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bytes_that_were_damaged_on_the_way_are_looked_at_again(tmp_path: Path, compression: str) -> None:
    layer = literal_layer(LARGE, compression=compression)
    good = COMPRESSIONS[compression](LARGE)
    for offset in (0, len(good) // 2, len(good) - 1):
        supply = MemorySupply(good, step=1 << 16)
        supply.data = good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :]
        supply.mended = good
        assert _files_of(_remote(layer, supply), tmp_path) == _files_of(literal_layer(LARGE), tmp_path)
        assert supply.again == [False, True]


def test_a_layer_that_is_damaged_on_the_way_each_time_is_a_wrong_digest(tmp_path: Path) -> None:
    good = COMPRESSIONS["gzip"](LARGE)
    supply = MemorySupply(good, step=1 << 16)
    supply.data = bytes(len(good))
    layer = _remote(literal_layer(LARGE, compression="gzip"), supply)
    layers = Layers(_image(layer), str(tmp_path))
    with pytest.raises(FetchFailed) as caught:
        layers.files(layer)
    assert isinstance(caught.value.error, DigestMismatch)
    assert _children() == []


class Failed(MemorySupply):
    """A registry that has just failed."""

    def check(self) -> None:
        """Raise the error of a moment ago."""
        raise RegistryError("it is spared for a moment")


def test_no_thread_begins_for_another_layer_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusefs.image.lazy_layers._HEAD_START", 5)
    stored = [literal_layer(b"%d" % number, compression="gzip") for number in range(3)]
    image = _image(*(_remote(layer, Failed(b"x")) for layer in stored))
    layers = Layers(image._replace(source=image.source._replace(transport=REGISTRY)), str(tmp_path))
    began = time.monotonic()
    with pytest.raises(FetchFailed, match="spared for a moment"):
        layers.all_files()
    assert time.monotonic() - began < 5


def test_a_layer_of_a_registry_that_has_just_failed_is_an_error_before_a_file_is_made(tmp_path: Path) -> None:
    supply = Failed(COMPRESSIONS["gzip"](NOISE))
    layer = _remote(literal_layer(NOISE, compression="gzip"), supply)
    layers = Layers(_image(layer), str(tmp_path / "missing"))
    with pytest.raises(FetchFailed, match="spared for a moment"):
        layers.files(layer)
    assert supply.asked == []
