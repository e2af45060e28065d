"""Headers behind the end of the tar: a scan, an index and a reader find the same as if they were at their places."""

import errno
import gc
import io
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.chunked import headers as module
from fusefs.chunked.annotations import format_of
from fusefs.chunked.comparison import compare
from fusefs.chunked.formats import open_tar
from fusefs.chunked.headers import Headers
from fusefs.chunked.pieces import PieceTable, PieceTar
from fusefs.content.file import Extent, OpenFile
from fusefs.layers import scan as scan_module
from fusefs.layers.indexer import index_layer, index_scanned
from fusefs.layers.scan import Found
from fusefs.tar.members import ContentSource
from tests.conftest import TakeWarnings
from tests.support.builders import CREATED_NS
from tests.support.changesets import About, changeset, device, file, folder
from tests.support.chunked_layers import Chunked, Ranges, estargz, zstd_chunked
from tests.unit.chunked.example import EVERYTHING

WRITERS: list[Callable[[bytes], Chunked]] = [zstd_chunked, estargz]
MANY = changeset(
    *(file(f"{number}", bytes([number % 251]) * (number % 3000), About(uid=number)) for number in range(500)),
    device("null", "c", 1, 3),
    folder("d"),
    file("x" * 150, b"long", About(xattrs={b"user.x": b"1"})),
)


def new_file() -> OpenFile:
    return OpenFile(os.memfd_create("tar", os.MFD_CLOEXEC), "the layer")


@contextmanager
def opened(layer: Chunked) -> Iterator[PieceTar]:
    """Give the tar of *layer*, read piece by piece."""
    known = format_of(layer.annotations)
    assert known is not None
    tar = open_tar(known, layer.annotations, Ranges(layer.blob), new_file())
    yield tar
    tar.close()


class Part(NamedTuple):
    data: bytes
    hole: int


@given(st.lists(st.builds(Part, st.binary(max_size=20), st.integers(0, 3000)), max_size=20), st.integers(0, 9))
def test_all_bytes_are_as_in_a_file(parts: list[Part], after: int) -> None:
    headers = Headers(new_file())
    for part in parts:
        headers.add(part.data)
        headers.skip(part.hole)
    expected = b"".join(part.data + bytes(part.hole) for part in parts) + bytes(after)
    tar, held = headers.end(len(expected))
    assert held is not None
    for size in (1, 40, 5000):
        for offset in range(0, len(expected) + 2, 7):
            assert held.read_at(offset, size) == tar.read_at(offset, size) == expected[offset : offset + size]
    assert tar.read_at(0, len(expected)) == expected
    tar.close()


def test_memory_is_freed_without_a_collection() -> None:
    tar, held = Headers(new_file()).end(0)
    gc.disable()
    try:
        held_by = weakref.ref(held)
        del held
        assert held_by() is None
    finally:
        gc.enable()
        tar.close()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("tar", [EVERYTHING, MANY, changeset()])
def test_an_index_of_headers_in_memory_is_that_of_the_file(write: Callable[[bytes], Chunked], tar: bytes) -> None:
    with opened(write(tar)) as pieces:
        scan = pieces.take_scan()
        assert scan is not None
        assert pieces.take_scan() is None
        quick, slow = io.BytesIO(), io.BytesIO()
        warnings = index_scanned(scan, CREATED_NS, quick)
        assert index_layer(ContentSource(pieces.headers, "the layer"), CREATED_NS, slow) == warnings
        assert quick.getvalue() == slow.getvalue()


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024) + b"garbage".ljust(512, b"\0")])
def test_a_second_pass_has_the_warnings_of_the_first(end: bytes, take_warnings: TakeWarnings) -> None:
    layer = zstd_chunked(changeset(file("a", b"1"))[:-1024] + end)
    take_warnings()
    with opened(layer) as pieces:
        scan = pieces.take_scan()
        assert scan is not None
        warnings = index_scanned(scan, CREATED_NS, io.BytesIO())
        assert warnings == index_layer(ContentSource(pieces.headers, "the layer"), CREATED_NS, io.BytesIO()) != []


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("limit", ["_MAX_HELD", "_MAX_RUNS"])
def test_too_many_headers_are_in_the_file_at_once(
    write: Callable[[bytes], Chunked], limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = write(MANY)
    with opened(layer) as pieces:
        expected = bytes(pieces.read_at(0, pieces.size))
    monkeypatch.setattr(module, limit, 100)
    with opened(layer) as pieces:
        assert pieces.take_scan() is None
        assert pieces.read_at(0, pieces.size) == expected


@pytest.mark.parametrize("write", WRITERS)
def test_all_can_be_read_and_compared_where_nothing_can_be_written(
    write: Callable[[bytes], Chunked], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    layer = write(MANY)
    with opened(layer) as pieces:
        whole = bytes(pieces.read_at(0, pieces.size))
        plain = new_file()
        os.pwrite(plain.descriptor, whole, 0)
        monkeypatch.setattr(os, "pwrite", full)
        assert pieces.read_at(0, pieces.size) == whole
        assert compare(pieces, Extent(plain, 0, len(whole)), "the layer")
    plain.close()


@pytest.mark.parametrize("write", WRITERS)
def test_members_with_many_records_are_scanned_again(
    write: Callable[[bytes], Chunked], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = write(EVERYTHING)
    indexes = []
    for room in (1 << 15, 3, 0):
        monkeypatch.setattr(scan_module, "_MAX_RECORDS", room)
        with opened(layer) as pieces:
            scan, made = pieces.take_scan(), io.BytesIO()
            assert scan is not None
            assert isinstance(scan, Found) == (write is zstd_chunked and room > 3)
            index_scanned(scan, CREATED_NS, made)
            indexes.append(made.getvalue())
    assert indexes[0] == indexes[1] == indexes[2]


def test_a_header_is_found_wherever_it_lies() -> None:
    headers = Headers(new_file())
    headers.add(b"h" * 512)
    headers.skip(1024)
    headers.add(b"i" * 512)
    header_tar, _ = headers.end(4096)
    table = PieceTable()
    blob = Ranges(b"a" * 512 + b"b" * 400)
    table.add(512, 512, 0, 512, 0, sha256(b"a" * 512).digest())
    table.add(1024, 400, 512, 400, 0, sha256(b"b" * 400).digest())
    tar = PieceTar(header_tar, table, blob, lambda data, inner, size: data[inner : inner + size])
    assert tar.read_at(1000, 100) == b"a" * 24 + b"b" * 76
    assert bytes(tar.read_cached(600, 10) or b"aaaaaaaaaa") == b"a" * 10
    for offset, size in ((511, 2), (0, 1), (1535, 2), (2000, 100), (2047, 1)):
        assert tar.read_cached(offset, size) is None
    for offset, size in ((1400, 30), (1424, 1), (1424, 112), (2048, 100)):
        assert bytes(tar.read_cached(offset, size) or tar.read_at(offset, size)) == bytes(tar.read_at(offset, size))
    assert tar.read_at(1400, 200) == b"b" * 24 + bytes(112) + b"i" * 64
    assert tar.read_at(0, 4096) == b"h" * 512 + b"a" * 512 + b"b" * 400 + bytes(112) + b"i" * 512 + bytes(2048)
    tar.close()
