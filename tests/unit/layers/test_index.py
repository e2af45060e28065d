"""The index of a layer: records, found by binary search."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.content.file import Extent, OpenFile
from fusefs.layers.index import BrokenIndex, LayerIndex
from fusefs.layers.record import IMPLICIT, LOWER_LINK, RECORD_SIZE, RECORDS, ROOT, SPARSE, IndexHeader
from tests.support.builders import BLOCK, CREATED_NS, Memory
from tests.support.changesets import (
    About,
    changeset,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    indexed,
    opaque,
    symlink,
    whiteout,
)


@contextmanager
def index_of(*members: bytes) -> Iterator[LayerIndex]:
    """Index a layer."""
    with indexed(changeset(*members)) as layer:
        assert layer.warning is None
        yield layer.files.index


def at(index: LayerIndex, path: bytes) -> int | None:
    """Return the record at *path*."""
    record: int | None = ROOT
    for part in path.split(b"/"):
        assert record is not None
        record = index.find(record, part)
    return record


def test_a_record_is_108_bytes_and_12_bytes_for_each_member_follow_the_heap() -> None:
    with index_of(file("a"), symlink("b", "target"), file("c", b"", About(xattrs={b"user.x": b"1"}))) as index:
        heap = len(b"abctarget") + 2 + 4 + len(b"user.x1")
        assert (RECORDS, RECORD_SIZE, index.count) == (64, 108, 4)
        assert len(index._data) == 64 + 4 * 108 + heap + 3 * 12


def test_a_number_behind_the_last_record_is_that_of_none_whatever_follows() -> None:
    with index_of(symlink("a", "x" * 4000)) as index:
        assert index.record(index.count - 1).text_length == 4000
        with pytest.raises(IndexError):
            index.record(index.count)


def test_an_empty_layer_is_a_root_that_nothing_lists() -> None:
    with index_of() as index:
        root = index.record(ROOT)
        assert (index.count, root.parent, root.children, index.name(ROOT)) == (1, ROOT, 0, b"")
        assert (root.mode, root.flags, root.nlink) == (stat.S_IFDIR | 0o755, IMPLICIT, 1)
        assert root.mtime * 10**9 + root.mtime_ns == CREATED_NS
        assert index.find(ROOT, b"a") is None


def test_entries_of_a_directory_lie_next_to_each_other_in_the_order_of_their_bytes() -> None:
    with index_of(
        file("b/2"), file("a"), file(b"b/\xff"), file("b/10"), file("b/Z"), folder("c"), file("b.x")
    ) as index:
        names = [index.name(record) for record in range(index.count)]
        assert names == [b"", b"a", b"b", b"b.x", b"c", b"10", b"2", b"Z", b"\xff"]
        parents = [index.record(record).parent for record in range(index.count)]
        assert parents == [0, 0, 0, 0, 0, 2, 2, 2, 2]
        spans = [(index.record(record).first_child, index.record(record).children) for record in (0, 2, 4)]
        assert spans[:2] == [(1, 4), (5, 4)]
        assert spans[2][1] == 0


def test_a_name_is_found_in_its_own_directory_only() -> None:
    with index_of(file("a/x"), file("b/y"), file("x/y/z")) as index:
        directories = [at(index, path) for path in (b"a", b"b", b"x", b"x/y")]
        found = [[index.find(directory or 0, name) is not None for name in (b"x", b"y", b"z")]
                 for directory in directories]  # fmt: skip
        assert found == [[True, False, False], [False, True, False], [False, True, False], [False, False, True]]


def test_a_file_has_no_entries() -> None:
    with index_of(file("a"), file("b")) as index:
        assert [index.find(record, name) for record in (1, 2) for name in (b"", b"a", b"b")] == [None] * 6


def test_children_are_all_entries_of_a_directory_by_name_and_in_order() -> None:
    with index_of(file("d/.wg"), whiteout("d/b"), whiteout("d/a"), opaque("d"), file("d/.wi"), file("d/a/x")) as index:
        directory = at(index, b"d")
        assert directory is not None
        children = list(index.listed(directory))
        assert [name for name, *_ in children] == [b".wg", b".wh..wh..opq", b".wh.a", b".wh.b", b".wi", b"a"]
        for name, record, *said in children:
            entry = index.record(record)
            assert (index.name(record), [entry.inode, entry.mode, entry.flags]) == (name, said)
        assert list(index.whiteouts(directory)) == [b".wh..opq", b"a", b"b"]
        assert [list(index.listed(record)) for record in (2, 3)] == [[], []]
        assert [list(index.whiteouts(record)) for record in (2, 3)] == [[], []]


def test_names_of_one_file_share_its_first_record_and_are_counted() -> None:
    with index_of(file("z", b"1"), hard_link("a", "z"), hard_link("d/m", "a"), file("b")) as index:
        records = [at(index, name) or 0 for name in (b"a", b"z", b"d/m")]
        assert [index.record(record).inode for record in records] == [records[0]] * 3
        assert [index.record(record).nlink for record in records] == [3, 3, 3]
        assert [index.record(at(index, name) or 0).nlink for name in (b"b", b"d")] == [1, 1]


def test_a_link_to_a_lower_layer_is_a_path() -> None:
    with index_of(hard_link("a", "./over//there")) as index:
        entry = index.record(1)
        assert (entry.flags, index.text(entry)) == (LOWER_LINK, b"over/there")


def test_runs_and_extended_attributes_are_in_the_heap() -> None:
    xattrs = {b"user.a": b"\0\1", b"user.b": b"x" * 1000}
    with index_of(gnu_sparse("s", 100, [(3, b"abc"), (90, b"d")]), file("x", b"", About(xattrs=xattrs))) as index:
        sparse, other = index.record(1), index.record(2)
        assert (sparse.flags, sparse.size, index.runs(sparse)) == (SPARSE, 100, [(3, 512, 3), (90, 515, 1)])
        assert (list(index.xattrs(sparse)), dict(index.xattrs(other))) == ([], xattrs)


def test_an_index_stays_when_the_descriptor_is_closed() -> None:
    with index_of(file("a", b"data")) as index:
        descriptor = os.memfd_create("copy", os.MFD_CLOEXEC)
        os.write(descriptor, index._data)
        copy = LayerIndex(descriptor)
        os.close(descriptor)
        assert [copy.name(record) for record in range(copy.count)] == [b"", b"a"]


def an_index() -> bytes:
    """Return the bytes of an index."""
    with index_of(file("a", b"data"), symlink("s", "t"), hard_link("h", "lower")) as index:
        return index._data


def opened(data: bytes) -> LayerIndex:
    """Open an index with these bytes."""
    descriptor = os.memfd_create("index", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        return LayerIndex(descriptor)
    finally:
        os.close(descriptor)


def test_an_index_that_is_cut_anywhere_is_broken() -> None:
    whole = an_index()
    assert opened(whole).count == 4
    for length in range(len(whole)):
        with pytest.raises(BrokenIndex, match=r"^the (layer index|file) "):
            opened(whole[:length])


def test_an_index_with_something_behind_it_is_broken() -> None:
    with pytest.raises(BrokenIndex, match="its parts do not add up to"):
        opened(an_index() + b"x")


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("change", [1, -1, 1 << 40, -(1 << 40)])
def test_an_index_whose_parts_do_not_make_up_its_size_is_broken(number: int, change: int) -> None:
    whole = an_index()
    fields = list(IndexHeader.unpacked(whole) or ())
    fields[number] = (fields[number] + change) % (1 << 64)
    with pytest.raises(BrokenIndex, match="its parts do not add up to"):
        opened(IndexHeader(*fields).packed() + whole[RECORDS:])


def test_an_index_of_another_version_is_broken() -> None:
    with pytest.raises(BrokenIndex, match="not a layer index of this version"):
        opened(an_index().replace(b"imgfs layer 3", b"imgfs layer 2"))


LAYER = (
    folder("d"),
    file("d/a", b"1" * 100_000),
    file("d/b", b"", About(mtime_ns=1)),
    file("n" * 200, b"2"),
    fifo("f"),
    hard_link("h", "d/a"),
)


def test_the_headers_of_an_unchanged_layer_match() -> None:
    data = changeset(*LAYER)
    with indexed(data) as layer:
        source = Memory(data)
        assert layer.files.index.headers_match(source)
        assert source.bytes_read < len(data) // 2
    with indexed(changeset()) as layer:
        assert layer.files.index.headers_match(Memory(b""))


def test_a_changed_header_does_not_match() -> None:
    data = changeset(*LAYER)
    ends = list(accumulate(map(len, LAYER)))
    lasts = [0, ends[0], ends[2] - BLOCK, ends[3] - 2 * BLOCK, ends[3], ends[4]]
    with indexed(data) as layer:
        for start in lasts:
            for at in (0, 140, 511):
                changed = bytearray(data)
                changed[start + at] ^= 1
                assert not layer.files.index.headers_match(Memory(bytes(changed)))
        assert layer.files.index.headers_match(Memory(data[: ends[-1]]))
        assert not layer.files.index.headers_match(Memory(data[: ends[-1] - 1]))
        assert not layer.files.index.headers_match(Memory(b""))


def test_headers_that_cannot_be_read_are_an_error_and_not_others(tmp_path: Path) -> None:
    data = changeset(*LAYER)
    path = tmp_path / "tar"
    path.write_bytes(data[:600])
    with indexed(data) as layer, path.open("rb") as tar:
        shorter = Extent(OpenFile(tar.fileno(), "tar"), 0, len(data))
        with pytest.raises(OSError, match="tar ends before offset"):
            layer.files.index.headers_match(shorter)


def test_links_into_lower_layers_are_listed() -> None:
    with index_of(hard_link("b", "x"), file("a"), hard_link("d/c", "b"), hard_link("e", "y")) as index:
        found = [(index.name(record), index.text(index.record(record))) for record in index.lower_links()]
        assert found == [(b"b", b"x"), (b"e", b"y"), (b"c", b"x")]


NAMES = st.binary(min_size=1, max_size=5).filter(lambda name: not set(name) & {0, ord("/"), ord(".")})


@given(names=st.sets(NAMES, max_size=30), others=st.sets(NAMES, max_size=10))
def test_every_name_is_found_and_no_other(names: set[bytes], others: set[bytes]) -> None:
    with index_of(*(file(b"d/" + name, name) for name in names), folder("d"), folder("e")) as index:
        directory = at(index, b"d") or 0
        entry = index.record(directory)
        listed = [index.name(record) for record in range(entry.first_child, entry.first_child + entry.children)]
        assert listed == sorted(names)
        found = {name: index.find(directory, name) for name in names | others}
        assert {name: record for name, record in found.items() if record is not None} == {
            name: entry.first_child + place for place, name in enumerate(sorted(names))
        }
