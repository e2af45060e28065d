"""The bytes of files: in devices, behind the inode, in the metadata."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Content, Literal
from fusefs.erofs.devices import DataFile
from fusefs.erofs.limits import Unfit
from fusefs.tree.node import Attributes, Directory, RegularFile
from tests.support.erofs_reader import ReadInode
from tests.support.erofs_views import FOLDER, Metadata, check, on_disk

_NOISE = bytes(number * 7 % 251 for number in range(70_000))
_XATTRS = {words: ((b"user.x", b"v" * (4 * words - 5)),) for words in range(2, 10)}
"""An extended attribute that takes so many words."""


@pytest.fixture(name="stack")
def stack_fixture() -> Iterator[ExitStack]:
    """Give a stack that closes what a test opens."""
    with ExitStack() as stack:
        yield stack


def extent(stack: ExitStack, data: bytes, offset: int, size: int) -> Extent:
    """Return a part of a new file with *data*."""
    return Extent(OpenFile(stack.enter_context(on_disk(data)), "x"), offset, size)


def shown(*contents: Content, xattrs: tuple[tuple[bytes, bytes], ...] = ()) -> tuple[Metadata, list[ReadInode]]:
    """Write a view of files with these contents, check it, and return it and the inodes of the files."""
    made = check(
        Directory(
            FOLDER,
            {
                b"%05d" % number: RegularFile(Attributes(0o644, 0, 0, 0), content, xattrs)
                for number, content in enumerate(contents)
            },
        )
    )
    walked = made.erofs.shown
    return made, [walked[b"%05d" % number] for number in range(len(contents))]


@pytest.mark.parametrize(
    ("size", "layout"), [(0, 0), (1, 2), (483, 2), (484, 2), (485, 0), (511, 0), (512, 0), (513, 0), (70_000, 0)]
)
def test_documents_are_behind_their_inode_or_in_blocks_before_it(size: int, layout: int) -> None:
    made, (inode,) = shown(Literal(_NOISE[:size]))
    assert (inode.size, inode.layout, made.written.devices) == (size, layout, ())


def test_many_documents_are_placed_so_that_none_crosses_a_block() -> None:
    shown(*(Literal(_NOISE[:size]) for size in range(600)))  # the reader refuses one that does


def test_a_file_in_whole_blocks_of_a_device_takes_64_bytes(stack: ExitStack) -> None:
    whole = extent(stack, _NOISE[: 512 * 100], 0, 512 * 100)
    parts = [whole.slice(512 * number, size) for number, size in enumerate((1, 511, 512, 513, 1, 2000))]
    made, inodes = shown(*parts)
    first = min(inode.nid for inode in inodes)
    assert [inode.nid - first for inode in inodes] == [0, 2, 4, 6, 8, 10]
    assert {inode.layout for inode in inodes} == {0}
    assert made.written.devices == (DataFile(whole.file.descriptor, 51_200),)


@pytest.mark.parametrize("size", [511, 512, 513, 1023, 1024, 1025])
def test_the_last_bytes_of_a_device_that_are_no_whole_block_are_stored(stack: ExitStack, size: int) -> None:
    _, (inode,) = shown(extent(stack, _NOISE[:size], 0, size))
    assert inode.layout == (2 if size % 512 else 0)


@pytest.mark.parametrize("words", range(2, 10))
@pytest.mark.parametrize("tail", [1, 483, 484, 485, 511])
def test_what_does_not_fit_behind_an_inode_with_xattrs_is_in_a_chunk(stack: ExitStack, words: int, tail: int) -> None:
    _, (inode,) = shown(extent(stack, _NOISE[: 512 * 50 + tail], 0, 512 * 50 + tail), xattrs=_XATTRS[words])
    head = 64 + 12 + 4 * words
    assert inode.layout == (2 if head % 32 + tail <= 512 else 4)


def test_a_device_of_less_than_a_block_has_no_data(stack: ExitStack) -> None:
    made, (inode,) = shown(extent(stack, b"short", 0, 5))
    assert (inode.layout, inode.union, made.erofs.slots[0].blocks) == (2, 0, 0)


@pytest.mark.parametrize(("count", "layout", "size"), [(8, 0, 64), (9, 4, 72), (127, 4, 72), (1001, 4, 72)])
def test_with_more_than_8_devices_chunks_name_their_device(
    stack: ExitStack, count: int, layout: int, size: int
) -> None:
    made, inodes = shown(*(extent(stack, bytes([number % 256]) * 1500 + bytes(36), 0, 1500) for number in range(count)))
    assert len(made.written.devices) == count
    assert {inode.layout for inode in inodes} == {layout}
    assert layout == 0 or {inode.union & ~0x1F for inode in inodes} == {0x20}
    assert min(after.nid - inode.nid for inode, after in pairwise(inodes)) == -(-size // 32)


def test_files_of_one_descriptor_have_one_device(stack: ExitStack) -> None:
    whole = extent(stack, _NOISE[:10_240], 0, 10_240)
    made, _ = shown(*(whole.slice(512 * number, 512) for number in range(20)))
    assert len(made.written.devices) == 1


@pytest.mark.parametrize(("offset", "size", "fits"), [(0, 1024, True), (512, 512, True), (512, 513, False)])
def test_bytes_beyond_the_end_of_a_device_do_not_fit(stack: ExitStack, offset: int, size: int, *, fits: bool) -> None:
    content = extent(stack, _NOISE[:1024], offset, size)
    if fits:
        shown(content)
        return
    with pytest.raises(Unfit, match="513 bytes at 512 are beyond the end of a file of 1024 bytes"):
        shown(content)


def test_bytes_that_begin_inside_of_a_block_are_copied(stack: ExitStack) -> None:
    _, (inode,) = shown(extent(stack, _NOISE, 100, 60_000))
    assert inode.layout == 4


def test_too_many_copied_bytes_do_not_fit(stack: ExitStack) -> None:
    whole = extent(stack, b"", 0, 70 << 20)
    os.truncate(whole.file.descriptor, whole.size)
    with pytest.raises(Unfit, match="begins inside of a block"):
        shown(whole.slice(1, 17 << 20))
    parts = [whole.slice(1, 15 << 20)] * 5
    shown(*parts[:4])
    with pytest.raises(Unfit, match="too much room"):
        shown(*parts)


def test_bytes_in_no_local_file_do_not_fit() -> None:
    with pytest.raises(Unfit, match="no local file"):
        shown(Literal(b"data").slice(0, 4))


def test_two_tebibytes_of_devices_do_not_fit(stack: ExitStack) -> None:
    room = ((1 << 32) - 1 - (1 << 24)) * 512
    sizes = {room - 512: True, room: False}
    for size, fits in sizes.items():
        content = extent(stack, b"", 0, 512)
        os.truncate(content.file.descriptor, size)
        if fits:
            shown(content)
            continue
        with pytest.raises(Unfit, match="2 TiB"):
            shown(content)


def test_an_error_of_the_disk_is_told() -> None:
    file = OpenFile(os.memfd_create("x", os.MFD_CLOEXEC), "x")
    os.write(file.descriptor, bytes(700))
    content = Extent(file, 0, 700)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        shown(content)
