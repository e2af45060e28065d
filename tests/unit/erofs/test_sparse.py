"""Files with holes, as tables of chunks."""

from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs.content.file import Extent, OpenFile, Sparse
from fusefs.erofs.limits import Unfit
from fusefs.tree.node import Directory, RegularFile
from tests.support.erofs_reader import ReadInode
from tests.support.erofs_views import FOLDER, Metadata, check, on_disk

_TAR = bytes(number * 13 % 255 + 1 for number in range(40_000))
_Run = tuple[int, int, int]
"""Offset in the file, offset in the tar, size."""


def shown(size: int, runs: Sequence[_Run], *, tar: bytes = _TAR, devices: int = 1) -> tuple[Metadata, ReadInode]:
    """Write and check a sparse file, and return the metadata and its inode."""
    with ExitStack() as stack:
        files = [OpenFile(stack.enter_context(on_disk(tar)), "tar") for _ in range(devices)]
        pairs = [(offset, Extent(files[0], at, length)) for offset, at, length in runs]
        stored = sum(length for _, _, length in runs)
        entries = {b"%d" % number: RegularFile(FOLDER, Extent(file, 0, 512)) for number, file in enumerate(files)}
        made = check(Directory(FOLDER, entries | {b"sparse": RegularFile(FOLDER, Sparse(size, stored, lambda: pairs))}))
        return made, made.erofs.shown[b"sparse"]


@pytest.mark.parametrize("devices", [1, 9])
@pytest.mark.parametrize(
    ("size", "runs", "bits"),
    [
        (1 << 20, [], 11),
        (1 << 20, [(0, 0, 32_768)], 6),
        (1 << 20, [((1 << 20) - 32_768, 512, 32_768)], 6),
        (70_000, [(65_536, 0, 4464)], 7),
        (1000, [(512, 512, 488)], 0),
    ],
    ids=repr,
)
def test_aligned_runs_are_not_copied(size: int, runs: list[_Run], bits: int, devices: int) -> None:
    made, inode = shown(size, runs, devices=devices)
    assert inode.layout == 4
    assert inode.union == bits | (0x20 if devices > 8 else 0)
    assert made.written.size < 4096 + 128 * devices + 1536


@pytest.mark.parametrize("offset", [1, 511, 513])
@pytest.mark.parametrize("at", [0, 1, 511, 512])
@pytest.mark.parametrize("length", [1, 511, 512, 513, 5000])
def test_runs_that_are_not_aligned_are_copied(offset: int, at: int, length: int) -> None:
    shown(20_000, [(offset, at, length)])


def test_the_last_bytes_of_a_device_that_are_no_whole_block_are_copied() -> None:
    shown(10_000, [(0, 0, 512), (9216, 512, 200)], tar=_TAR[:712])


def test_a_file_of_64_gigabytes_has_a_table_of_a_few_mebibytes() -> None:
    made, _ = shown(64 << 30, [(number << 33, 512 * number, 512) for number in range(8)])
    assert made.written.size < 4 << 20


@pytest.mark.parametrize(("exponent", "fits"), [(44, True), (45, False), (62, False)])
def test_a_table_that_is_too_large_does_not_fit(exponent: int, *, fits: bool) -> None:
    if fits:
        shown(1 << exponent, [(0, 0, 512)])
        return
    with pytest.raises(Unfit, match="has holes"):
        shown(1 << exponent, [(0, 0, 512)])


@st.composite
def _files(draw: st.DrawFn) -> tuple[int, list[_Run]]:
    unit = draw(st.sampled_from([1, 7, 512, 4096]))
    runs, position, at = [], 0, 0
    for _ in range(draw(st.integers(0, 6))):
        position += unit * draw(st.integers(0, 20))
        at += unit * draw(st.integers(0, 1))
        length = unit * draw(st.integers(1, 3))
        runs.append((position, at, length))
        position, at = position + length, at + length
    return position + draw(st.integers(0, 5000)) or 1, runs


@given(file=_files(), devices=st.sampled_from([1, 9]))
@settings(max_examples=400)
def test_all_bytes_are_those_of_the_file(file: tuple[int, list[_Run]], devices: int) -> None:
    size, runs = file
    shown(size, runs, tar=_TAR * 3, devices=devices)
