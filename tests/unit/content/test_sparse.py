"""Files with holes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.content.file import Extent, OpenFile, Sparse

Runs = list[tuple[int, bytes]]


@contextmanager
def sparse(size: int, runs: Runs, *, cut: int = 0) -> Iterator[Sparse]:
    """Return a sparse file whose *runs* lie one after the other in a file that is *cut* bytes too short."""
    file = OpenFile(os.memfd_create("tar", os.MFD_CLOEXEC), "x.tar")
    stored = b"".join(data for _, data in runs)
    try:
        os.write(file.descriptor, stored[: len(stored) - cut])
        extents, at = [], 0
        for _, data in runs:
            extents.append(Extent(file, at, len(data)))
            at += len(data)
        placed = [(offset, extent) for (offset, _), extent in zip(runs, extents, strict=True)]
        yield Sparse(size, len(stored), lambda: placed)
    finally:
        file.close()


def whole(size: int, runs: Runs) -> bytes:
    """Return all bytes of a sparse file."""
    content = bytearray(size)
    for offset, data in runs:
        content[offset : offset + len(data)] = data
    return bytes(content)


@st.composite
def files(draw: st.DrawFn) -> tuple[int, Runs]:
    """Draw a size and runs, which may touch."""
    runs, at = [], 0
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.integers(0, 5))
        data = draw(st.binary(min_size=1, max_size=5))
        runs.append((at, data))
        at += len(data)
    return at + draw(st.integers(0, 5)), runs


@given(file=files(), windows=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), min_size=1, max_size=20))
def test_every_read_has_the_bytes_and_the_zeros_between_them(
    file: tuple[int, Runs], windows: list[tuple[int, int]]
) -> None:
    content = whole(*file)
    with sparse(*file) as found:
        assert (found.size, found.stored) == (len(content), sum(len(data) for _, data in file[1]))
        for offset, size in windows:
            assert bytes(found.read_at(offset, size)) == content[offset : offset + size]
            cached = found.read_cached(offset, size)
            assert cached is None or bytes(cached) == content[offset : offset + size]


def test_a_file_that_is_one_hole_is_zeros_and_stores_nothing() -> None:
    with sparse(1 << 40, []) as found:
        assert (found.size, found.stored) == (1 << 40, 0)
        assert bytes(found.read_at((1 << 40) - 3, 10)) == bytes(3)
        assert found.read_cached(5, 4) == bytes(4)


def test_a_read_that_needs_no_run_touches_none() -> None:
    with sparse(100, [(0, b"start"), (90, b"end")], cut=8) as found:
        assert bytes(found.read_at(10, 50)) == bytes(50)


@pytest.mark.parametrize("place", [(0, 5), (3, 90), (89, 3), (92, 8)])
def test_a_run_that_is_not_there_is_an_error_and_no_zeros(place: tuple[int, int]) -> None:
    with sparse(100, [(0, b"start"), (90, b"end")], cut=8) as found, pytest.raises(OSError, match="ends before"):
        found.read_at(*place)
