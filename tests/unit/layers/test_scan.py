"""A layer's scan: most members are plain, and it makes no difference but in time."""

import os
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs.content.file import Extent, OpenFile
from fusefs.errors import InvalidImage
from fusefs.layers.indexer import LayerIndexer, index_layer
from fusefs.layers.scan import LayerScan
from fusefs.tar.members import ContentSource, scan
from tests.support.builders import BLOCK, CREATED_NS, END, Memory, extended, header, pax, resealed
from tests.support.changesets import (
    About,
    changeset,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    member,
    pax_sparse,
    symlink,
)
from tests.support.damages import DAMAGES, Damage

Outcome = tuple[bytes, list[str]] | str
"""The bytes of an index and the warnings, or the error."""


def index(data: bytes) -> Outcome:
    """Index a layer as imgfs does."""
    tar = Memory(data, "layer")
    try:
        with open(os.memfd_create("index", os.MFD_CLOEXEC), "w+b") as written:
            warnings = index_layer(tar, CREATED_NS, written)
            written.seek(0)
            return written.read(), warnings
    except InvalidImage as error:
        return str(error)


def index_one_by_one(data: bytes) -> Outcome:
    """Index a layer by the scan for all tars, which has no plain members."""
    tar = Memory(data, "layer")
    indexer = LayerIndexer(*divmod(CREATED_NS, 10**9))
    warnings: list[str] = []
    try:
        for each in scan(tar, warnings.append) if data else ():  # an empty layer is not scanned
            indexer.add(tar, each)
    except InvalidImage as error:
        return str(error)
    with open(os.memfd_create("index", os.MFD_CLOEXEC), "w+b") as written:
        indexer.write(written)
        written.seek(0)
        return written.read(), warnings + indexer.warnings("layer")


def plain_and_others(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the names of plain members, and of all others."""
    layer = LayerScan(Memory(data, "layer"))
    plain: list[bytes] = []
    others: list[bytes] = []
    while True:
        plain += [name for _, name, *_ in layer.plain()]
        if (other := layer.other()) is None:
            assert layer.warnings == []
            return plain, others
        others.append(other.name)


def same(data: bytes) -> None:
    """Check that it makes no difference how a layer is read."""
    assert index(data) == index_one_by_one(data)


NAMES = [
    "a", "a/b", "a/b/c", "./a/d", "/b", "b/", "b/x", "c/d/e", "c/.wh.e", "c/.wh..wh..opq", "d", "d/../e", "..", ".",
    "./", "", "a//b", "a/./b", "x" * 101, "l/" + "y" * 120 + "/z", "é", "w" * 256, ".wh.", "q/.wh.a", "q/r/.wh.c",
    "d/" * 40 + "k",
]  # fmt: skip
FIELDS = [b"       \0", b"-0000001", b"0000_7  ", bytes(8), b"  755 \0\0", b"\x80\0\0\0\0\0\0\1", b"\xff" * 8,
          b"99999999", b"\xb2\xb2\xb2\xb2\xb2\xb2\xb2\0"]  # fmt: skip
RECORDS = [b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime", b"atime", b"comment", b"GNU.sparse.name",
           b"SCHILY.xattr.user.z"]  # fmt: skip
VALUES = [b"a/b", b"12", b"x", b"1.5", b"-3.25", b"b\0c", b"0", b"y" * 300]

names = st.sampled_from(NAMES)
abouts = st.builds(
    About,
    st.sampled_from([0o644, 0o4755, 0]),
    st.sampled_from([0, 1000, 1 << 22, (1 << 32) - 1]),
    st.sampled_from([0, 5]),
    st.sampled_from([0, 1700000000 * 10**9, 1700000000_123456789, -1_500000000, 10**9 << 34]),
    st.sampled_from([{}, {}, {}, {b"user.x": b"1"}]),
    st.just({}),
    st.dictionaries(st.sampled_from(RECORDS), st.sampled_from(VALUES), max_size=1) | st.just({}),
)
contents = st.sampled_from([0, 1, 511, 512, 513, 5000, 70_000]).map(bytes)
files = st.builds(file, names, contents, abouts)


def _with_field(whole: bytes, at: int, field: bytes) -> bytes:
    """Return a member without data with another *field* in its header."""
    return whole[:-BLOCK] + resealed(whole[-BLOCK:], at, field)


members = st.one_of(
    files,
    files,
    st.builds(folder, names, abouts),
    st.builds(symlink, names, st.sampled_from(["t", "../x", "", "t" * 150, "/abs"]), abouts),
    st.builds(hard_link, names, names, abouts),
    st.builds(fifo, names, abouts),
    st.builds(device, names, st.sampled_from("bc"), st.sampled_from([1, 5000]), st.just(3), abouts),
    st.builds(member, names, st.sampled_from([b"\0", b"7", b"V", b"D"]), abouts, data=st.just(b"data")),
    st.builds(_with_field, st.builds(file, names, st.just(b""), abouts),
              st.sampled_from([100, 108, 116, 124, 136, 257, 329, 345]), st.sampled_from(FIELDS)),
    st.sampled_from([
        gnu_sparse("s", 100, [(3, b"abc"), (90, b"d")]),
        pax_sparse("1.0", "p", 100, [(3, b"abc")]),
        pax({"mtime": "5", "path": "other"}, b"g"),
        extended(b"L", b"long\0x") + pax({"path": "p", "mtime": "1.5"}) + header("n"),
        extended(b"L", b"n" * 40_000) + header("n"),
        extended(b"K", b"a/b") + pax({"linkpath": "a"}) + header("k", typeflag=b"1"),
        pax({"mtime": "1." + "5" * 100}) + header("exact"),
        pax({"mtime": "1"}) + pax({"atime": "2"}) + header("later", typeflag=b"0"),
        header("prefixed", prefix=b"pre/fix"),
        resealed(header("of-go-1.7", magic=b"ustar  \0", prefix=b"pre/fix"), 108, b"\x80\0\0\0\x70\0\0\0"),
        header("times", magic=b"ustar  \0", prefix=b"14000000000\x0014000000000"),
        resealed(header("star", prefix=b"p" * 140), 508, b"tar\0"),
        bytes(BLOCK),
    ]),
)  # fmt: skip
layers = st.builds(
    lambda parts, end: b"".join(parts) + end,
    st.lists(members, max_size=10),
    st.sampled_from([END, END, END, b"", bytes(BLOCK), END + b"junk"]),
)


@given(layers)
@settings(max_examples=500)
def test_a_layer_is_the_same_as_by_the_scan_for_all_tars(data: bytes) -> None:
    same(data)


_NUMBER = st.integers(0, (1 << 20) - 1)


@given(
    layers.filter(bool), st.lists(st.tuples(st.sampled_from(DAMAGES), _NUMBER, _NUMBER), min_size=1, max_size=3)
)  # fmt: skip
@settings(max_examples=500)
def test_a_damaged_layer_is_the_same_as_by_the_scan_for_all_tars(
    data: bytes, damages: list[tuple[Damage, int, int]]
) -> None:
    for damage, place, value in damages:
        data = damage(data, place, value) or b"\0"
    same(data)


def test_a_layer_that_is_cut_anywhere_is_the_same_as_by_the_scan_for_all_tars() -> None:
    whole = changeset(folder("d"), file("d/x" * 60, b"1"), file("t", b"22", About(mtime_ns=1)), symlink("s", "t"))
    for length in range(0, len(whole), 37):
        same(whole[:length])


@pytest.mark.parametrize("flipped", range(0, BLOCK, 3))
def test_a_flipped_bit_in_any_byte_of_a_header_is_seen(flipped: int) -> None:
    good = file("usr/bin/x", b"data", About(0o755, 7, 8, 1700000000 * 10**9))
    broken = bytearray(good)
    broken[flipped] ^= 1
    assert index(file("a") + bytes(broken) + END) == (
        "layer: damaged: no tar header at offset 512: the checksum does not match"
    )


def test_two_changes_that_keep_the_checksum_modulo_65521_are_seen() -> None:
    """That is what Adler-32 alone would be taken in by: 65521 is 257 times 254, and 243."""
    block = bytearray(header("\x01" * 100, link="\x01" * 100, prefix=b"\x01" * 155))
    total, missing = sum(block), 65521
    for at in (*range(100), *range(157, 257), *range(345, 500)):
        more = min(254, missing)
        block[at] += more
        missing -= more
    assert (sum(block) - total, missing) == (65521, 0)
    assert index(file("a") + bytes(block) + END) == (
        "layer: damaged: no tar header at offset 512: the checksum does not match"
    )


def written(form: int, **changes: object) -> bytes:
    """Return a tar of Python's: a directory, files with short and long names, links."""
    raw = BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for name, kind, link in [
            ("d", tarfile.DIRTYPE, ""),
            ("d/file", tarfile.REGTYPE, ""),
            ("d/" + "n" * 60 + "/" + "m" * 60, tarfile.REGTYPE, ""),
            ("d/link", tarfile.SYMTYPE, "file"),
            ("d/hard", tarfile.LNKTYPE, "d/file"),
            ("d/é", tarfile.REGTYPE, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, link, 1700000000
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info)
    return raw.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        written(tarfile.USTAR_FORMAT),
        written(tarfile.GNU_FORMAT),
        written(tarfile.GNU_FORMAT, uid=1 << 24, mtime=1 << 34),
        written(tarfile.PAX_FORMAT),
        written(tarfile.PAX_FORMAT, mtime=1700000000.25),
        written(tarfile.PAX_FORMAT, pax_headers={"atime": "1.5", "ctime": "2.5", "mtime": "3.5"}),
    ],
    ids=["ustar", "GNU", "GNU, large numbers", "PAX", "PAX, times", "PAX, all times"],
)
def test_what_is_in_nearly_all_layers_is_plain(data: bytes) -> None:
    plain, others = plain_and_others(data)
    assert ([name[:6] for name in plain], others) == (
        [b"d/", b"d/file", b"d/nnnn", b"d/link", b"d/hard", b"d/\xc3\xa9"],
        [],
    )
    same(data)


def test_what_is_seldom_in_a_layer_is_not() -> None:
    about = About(xattrs={b"user.x": b"1"})
    plain, others = plain_and_others(
        changeset(file("a"), fifo("f"), file("b"), file("x", b"", about), device("c", "c", 1, 3), file("d"))
    )
    assert (plain, others) == ([b"a", b"b", b"d"], [b"f", b"x", b"c"])


def test_the_bytes_of_large_files_are_not_read() -> None:
    tar = Memory(changeset(*(file(f"{number}", bytes(1 << 20)) for number in range(10))))
    layer = LayerScan(tar)
    assert len(list(layer.plain())) == 10
    assert tar.reads <= 12
    assert tar.bytes_read < 10 * 16384


def test_small_files_are_read_many_at_once() -> None:
    tar = Memory(changeset(*(file(f"{number}", bytes(100)) for number in range(2000))))
    layer = LayerScan(tar)
    assert len(list(layer.plain())) == 2000
    assert tar.reads <= 50


def test_a_file_that_became_shorter_than_its_layer_is_a_read_error(tmp_path: Path) -> None:
    path = tmp_path / "tar"
    path.write_bytes(file("a", bytes(3000)) + file("b"))
    with path.open("rb") as opened:
        tar = ContentSource(Extent(OpenFile(opened.fileno(), "the tar"), 0, 1 << 20), "layer")
        with pytest.raises(OSError, match="the tar ends before offset"), open(os.devnull, "wb") as nothing:
            index_layer(tar, 0, nothing)
