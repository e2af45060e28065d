"""Layers read piece by piece: the same as whole ones, and never a wrong byte."""

import os
import random
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from fusefs.chunked import estargz as estargz_module
from fusefs.chunked.annotations import format_of
from fusefs.chunked.formats import open_tar
from fusefs.chunked.pieces import PieceTar
from fusefs.chunked.toc import Unusable
from fusefs.content.file import OpenFile
from fusefs.content.pieces import FetchFailed
from tests.support.changesets import changeset, file, folder, layer_of, pax_sparse
from tests.support.chunked_layers import Change, Chunked, Json, Ranges, estargz, zstd_chunked
from tests.unit.chunked.example import DATA, EVERYTHING

WRITERS: Mapping[str, Callable[[bytes], Chunked]] = {
    "zstd:chunked": zstd_chunked,
    "eStargz": estargz,
    "eStargz, legacy": lambda tar: estargz(tar, legacy=True),
    "eStargz, several chunks in a member": lambda tar: estargz(tar, together=1500),
}
SMALL = changeset(folder("d"), file("d/a", b"hello"), file("b", DATA[:1500]))


@contextmanager
def opened(layer: Chunked, blob: Ranges) -> Iterator[PieceTar]:
    """Give the tar of *layer*, whose bytes are those of *blob*."""
    known = format_of(layer.annotations)
    assert known is not None
    file_of_tar = OpenFile(os.memfd_create("tar", os.MFD_CLOEXEC), "the layer")
    try:
        yield open_tar(known, layer.annotations, blob, file_of_tar)
    finally:
        file_of_tar.close()


def read(layer: Chunked, blob: Ranges | None = None) -> bytes:
    """Return the whole tar of *layer*."""
    with opened(layer, blob or Ranges(layer.blob)) as tar:
        return bytes(tar.read_at(0, tar.size))


def test_zstd_chunked_gives_the_exact_tar() -> None:
    assert read(zstd_chunked(EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize("name", WRITERS)
def test_a_layer_shows_what_its_whole_tar_shows(name: str) -> None:
    layer = WRITERS[name](EVERYTHING)
    assert layer_of(read(layer)) == layer_of(layer.tar)


@pytest.mark.parametrize("write", [zstd_chunked, estargz])
def test_a_large_table_is_held_in_memory_once_and_compressed(write: Callable[..., Chunked]) -> None:
    draw = random.Random(1)

    def enlarge(toc: Json) -> None:
        toc["entries"][0]["comment"] = draw.randbytes(400_000).hex()
        toc |= {f"comment {number}": draw.randbytes(400_000).hex() for number in range(20)}

    layer = write(SMALL, enlarge)
    tracemalloc.start()
    try:
        with opened(layer, Ranges(layer.blob)) as tar:
            _, peak = tracemalloc.get_traced_memory()
            assert tar.read_at(tar.size - 10, 10) == bytes(10)
    finally:
        tracemalloc.stop()
    assert len(layer.blob) > 8_000_000
    assert peak < len(layer.blob) + 6_000_000


@pytest.mark.parametrize("name", WRITERS)
def test_the_documents_take_one_range_and_files_that_are_close_another(name: str) -> None:
    layer = WRITERS[name](SMALL)
    blob = Ranges(layer.blob)
    with opened(layer, blob) as tar:
        assert len(blob.asked) == 1
        tar.read_at(0, tar.size)
        assert len(blob.asked) == 2
        tar.read_at(0, tar.size)
        assert len(blob.asked) == 2


@pytest.mark.parametrize("limit", [100, 1 << 20])
def test_the_end_of_a_large_estargz_layer_is_fetched_up_to_a_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = estargz(EVERYTHING)
    expected, size = read(layer), len(layer.blob)
    footer = layer.blob.rindex(b"STARGZ")
    table, first = int(layer.blob[footer - 16 : footer], 16), size - min(limit, size // 32)
    monkeypatch.setattr(estargz_module, "_TAIL", 60)
    monkeypatch.setattr(estargz_module, "_MAX_TAIL", limit)
    blob = Ranges(layer.blob)
    assert read(layer, blob) == expected
    assert blob.asked[:2] == [(first, size - first), (table, first - table)]


@pytest.mark.parametrize("name", WRITERS)
def test_a_flipped_bit_anywhere_is_an_error_and_never_a_wrong_byte(name: str) -> None:
    layer = WRITERS[name](SMALL)
    expected = read(layer)
    errors = 0
    for offset in range(len(layer.blob)):
        damaged = bytearray(layer.blob)
        damaged[offset] ^= 1 << offset % 8
        try:
            assert read(layer, Ranges(bytes(damaged))) == expected  # a byte that nobody reads
        except (FetchFailed, Unusable):
            errors += 1
    assert errors > len(layer.blob) // 2


class Shifted(Ranges):
    """A server that answers with another range."""

    def __init__(self, blob: bytes, shift: int, *, spared: int) -> None:
        super().__init__(blob)
        self._shift = shift
        self._spared = spared

    def unverified_range(self, offset: int, size: int) -> bytes:
        """Return other bytes, except to the first requests."""
        right = super().unverified_range(offset, size)
        if len(self.asked) <= self._spared:
            return right
        start = max(0, min(offset + self._shift, self.size - size))
        return self.blob[start : start + size]


@pytest.mark.parametrize("spared", [0, 1])
@pytest.mark.parametrize("name", WRITERS)
def test_the_answer_to_another_range_is_an_error_and_never_a_wrong_byte(name: str, spared: int) -> None:
    layer = WRITERS[name](SMALL)
    expected = read(layer)
    for shift in range(-300, 300, 7):
        blob = Shifted(layer.blob, shift, spared=spared)
        try:
            assert read(layer, blob) == expected
        except (FetchFailed, Unusable):
            continue


def test_an_older_zstd_chunked_layer_and_one_with_two_formats_are_plain_ones() -> None:
    old = zstd_chunked(SMALL, digest_of_split=False)
    with pytest.raises(Unusable, match="of an old version, has no digest of the tar-split"):
        read(old)
    without = {name: text for name, text in old.annotations.items() if "tarsplit" not in name}
    blob = Ranges(old.blob)
    with pytest.raises(Unusable, match="tarsplit-position is missing or malformed"):
        read(old._replace(annotations=without), blob)
    assert blob.asked == []
    assert format_of(zstd_chunked(SMALL).annotations | estargz(SMALL).annotations) is None
    assert format_of({"org.example": "x"}) is None


@pytest.mark.parametrize(
    "position",
    ["", "1:2", "1:2:3", "x:2:3:1", "-1:2:3:1", "1:2:3:4:5", "0:99999999999:3:1", "1:2:3:2", "1:2:200000000:1"],
)
def test_a_malformed_position_asks_for_nothing(position: str) -> None:
    layer = zstd_chunked(SMALL)
    key = "io.github.containers.zstd-chunked.manifest-position"
    blob = Ranges(layer.blob)
    with pytest.raises(Unusable, match="manifest-position"):
        read(layer._replace(annotations=layer.annotations | {key: position}), blob)
    assert blob.asked == []


def _entry(called: str, /, **changes: object) -> Change:
    """Return the change of the entry that is *called* so."""

    def change(toc: Json) -> None:
        entry = next(entry for entry in toc["entries"] if entry["name"] == called)
        entry |= changes

    return change


def _chunk(**changes: object) -> Change:
    def change(toc: Json) -> None:
        chunk = next(entry for entry in toc["entries"] if entry["type"] == "chunk")
        chunk |= changes

    return change


LIES: Mapping[str, Change] = {
    "a name": _entry("d/a", name="d/b"),
    "a size": _entry("d/a", size=6),
    "a negative size": _entry("d/a", size=-1),
    "a size that is no number": _entry("d/a", size="5"),
    "a size with a fraction": _entry("d/a", size=5.0),
    "a huge size": _entry("d/a", size=1 << 80),
    "a size that no file system takes": _entry("d/a", size=1 << 60),
    "a kind": _entry("d/a", type="socket"),
    "a name that is no string": _entry("d/a", name=5),
    "a name with NUL": _entry("d/a", name="d\0"),
    "an offset behind the end": _entry("d/a", offset=1 << 40),
    "a negative offset": _entry("d/a", offset=-5),
    "an offset that is true": _entry("d/a", offset=True),
    "no digest": _entry("d/a", digest="", chunkDigest=""),
    "another algorithm": _entry("d/a", digest="sha512:" + "0" * 128, chunkDigest="sha512:" + "0" * 128),
    "a digest that is none": _entry("d/a", digest="sha256:" + "g" * 64, chunkDigest="sha256:" + "g" * 64),
    "a chunk that is too long": _chunk(chunkSize=5000),
    "a chunk elsewhere": _chunk(chunkOffset=7),
    "a chunk before the one before it": _chunk(offset=1),
    "a missing chunk": lambda toc: toc["entries"].pop(),
    "a chunk without a file": lambda toc: toc["entries"].insert(0, {"type": "chunk", "name": "x"}),
    "a chunk too many": lambda toc: toc["entries"].append(toc["entries"][-1]),
    "no entries": lambda toc: toc.pop("entries"),
    "entries that are no list": lambda toc: toc.update(entries={}),
    "an entry that is no object": lambda toc: toc["entries"].append([]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_the_table_of_zstd_chunked_is_found_before_anything_is_shown(lie: str) -> None:
    with pytest.raises(Unusable, match=r"table of contents"):
        read(zstd_chunked(SMALL, LIES[lie]))


# Nothing contradicts a table of contents of eStargz about names and sizes that are consistent.
CONSISTENT = ("a name", "a kind")


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "a name"])
def test_a_lie_in_the_table_of_estargz_is_an_error(lie: str) -> None:
    with pytest.raises((Unusable, FetchFailed)):
        read(estargz(SMALL, LIES[lie]))


def test_members_that_are_missing_in_the_table_or_there_twice_are_found() -> None:
    for change in (
        lambda toc: toc["entries"].pop(0),
        lambda toc: toc["entries"].insert(0, toc["entries"][0]),
        lambda toc: toc["entries"].append({"type": "reg", "name": "more"}),
        lambda toc: toc["entries"].reverse(),
    ):
        with pytest.raises(Unusable, match="table of contents"):
            read(zstd_chunked(SMALL, change))


def test_a_tar_split_of_other_places_is_found() -> None:
    for changes in ({"size": 6}, {"size": -1}, {"type": 3}, {"payload": "!"}, {"size": 1 << 70}):

        def change(line: Json, changes: Json = changes) -> None:
            if line.get("name") == "d/a" or (line["type"] == 2 and "payload" in changes):
                line |= changes

        with pytest.raises(Unusable):
            read(zstd_chunked(SMALL, split=change))


def test_a_sparse_file_needs_the_whole_layer() -> None:
    with pytest.raises(Unusable, match="it has a sparse file"):
        read(zstd_chunked(changeset(pax_sparse("1.0", "sparse", 5000, [(1000, b"x")]))))
