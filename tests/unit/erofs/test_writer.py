"""Whole views: what is shared, what is listed, owners, times and links, and images of all sources."""

import io
import os
import stat
import tracemalloc
from collections.abc import Mapping
from contextlib import ExitStack

import pytest

from fusefs.content.file import Extent, OpenFile
from fusefs.content.protocol import Literal
from fusefs.erofs.limits import Unfit
from fusefs.erofs.writer import write
from fusefs.layers.index import LayerIndex
from fusefs.layers.indexer import index_layer
from fusefs.layers.rootfs import RootfsTree
from fusefs.layers.tree import LayerFiles, LayerTree
from fusefs.tar.members import ContentSource
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, Node, RegularFile, Special, Symlink
from fusefs.tree.overrides import Overrides
from tests.support.changesets import (
    About,
    all_indexed,
    changeset,
    device,
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
from tests.support.erofs_reader import Erofs, ReadInode
from tests.support.erofs_views import FOLDER, check, on_disk, stack_view

_YEAR_9999 = 253402300799_999999999
_FILE = Attributes(0o644, 0, 0, 0)


def shown(*layers: bytes, transform_symlinks: bool = False) -> Mapping[bytes, ReadInode]:
    """Write and check the trees of *layers*, and return their inodes by path."""
    with all_indexed(layers) as files:
        return check(stack_view(files, transform_symlinks=transform_symlinks)).erofs.shown


def nodes(**entries: Node) -> Directory:
    """Return a directory."""
    return Directory(FOLDER, {name.encode(): node for name, node in entries.items()})


@pytest.mark.parametrize("seconds", [-(1 << 62), -(1 << 33), -1, 0, 1, 1 << 32, 1 << 34, 253402300799, 1 << 62])
@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999])
def test_times_of_any_year(seconds: int, nanoseconds: int) -> None:
    if abs(seconds) == 1 << 62 and nanoseconds and seconds > 0:
        seconds -= 1
    check(nodes(f=RegularFile(Attributes(0o644, 0, 0, seconds * 10**9 + nanoseconds), Literal(b""))))


@pytest.mark.parametrize("owner", [0, 65_535, 65_536, (1 << 32) - 2])
def test_owners_of_32_bits(owner: int) -> None:
    shown(changeset(file("f", b"x", About(uid=owner)), folder("d", About(mode=0o700, gid=owner))))


def test_every_type_of_file() -> None:
    special = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO, "s": stat.S_IFSOCK}
    entries: dict[str, Node] = {
        name: Special(Attributes(0o7654, 1, 2, 3), kind, os.makedev(4095, (1 << 20) - 1) if name in "cb" else 0)
        for name, kind in special.items()
    }
    check(nodes(f=RegularFile(_FILE, Literal(b"data")), l=Symlink(_FILE, b"target"), d=nodes(), **entries))


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1000])
def test_a_tar_that_ends_with_the_last_byte_of_its_last_file(size: int) -> None:
    data = file("a", b"first") + file("b", b"x" * size)[: 512 + size]
    with indexed(data) as layer:
        found = check(stack_view([layer.files])).erofs.shown
        assert layer.warning
    assert found[b"rootfs/b"].layout == (2 if size % 512 else 0)


@pytest.mark.parametrize("devices", [1, 9])
@pytest.mark.parametrize("more", [0, 1, 1 << 36])
def test_files_of_a_tebibyte_and_more(more: int, devices: int) -> None:
    """A chunk has at most that size."""
    size = (1 << 40) + more
    header = file("large", b"", About(records={b"size": b"%d" % size}))
    with ExitStack() as stack:
        tar = OpenFile(stack.enter_context(on_disk(header)), "tar")
        os.truncate(tar.descriptor, len(header) + -(-size // 512) * 512 + 1024)
        index = stack.enter_context(os.fdopen(os.memfd_create("index"), "wb"))
        extent = Extent(tar, 0, tar.length())
        assert index_layer(ContentSource(extent, "tar"), 0, index) == []
        files = LayerFiles(LayerIndex(index.fileno()), extent)
        others = [Extent(OpenFile(stack.enter_context(on_disk(bytes(512))), "x"), 0, 512) for _ in range(devices - 1)]
        more_files = {b"%d" % number: RegularFile(_FILE, content) for number, content in enumerate(others)}
        found = check(Directory(FOLDER, {**stack_view([files]).entries, **more_files})).erofs.shown
    assert found[b"rootfs/large"].size == size


def test_every_type_of_member() -> None:
    mode = About(mode=0o7777, uid=70_000, gid=80_000, mtime_ns=_YEAR_9999, xattrs={b"user.a": b"1"})
    runs = [(5120, b"x" * 512), (10_240, b"y" * 1024)]
    members = (
        *(
            file("f", b"data", mode),
            file("empty"),
            folder("d", mode),
            symlink("l", "x", mode),
            symlink("m", "y" * 4095),
        ),
        *(fifo("p", mode), device("c", "c", 4095, (1 << 20) - 1, mode), device("b", "b", 8, 256)),
        *(gnu_sparse("sparse", 20_000, runs), whiteout("gone"), hard_link("f2", "f")),
    )
    found = shown(changeset(*members))
    assert found[b"layers/0/.wh.gone"].size == 0
    assert b"rootfs/.wh.gone" not in found


@pytest.mark.parametrize("size", [1, 447, 448, 449, 483, 484, 485, 511, 512, 513, 4095])
def test_targets_of_symbolic_links(size: int) -> None:
    inode = shown(changeset(symlink("l", "x" * size)))[b"layers/0/l"]
    assert (inode.size, inode.layout) == (size, 2 if size <= 484 else 0)


@pytest.mark.parametrize("target", [b"", b"x" * 4096])
def test_targets_that_the_kernel_does_not_take_do_not_fit(target: bytes) -> None:
    with pytest.raises(Unfit, match="symbolic link"):
        check(nodes(l=Symlink(_FILE, target)))


def test_a_file_with_one_name_is_one_inode_in_layers_and_rootfs() -> None:
    layer = changeset(file("d/f", b"data"), symlink("d/l", "x"), fifo("d/p"), file("a"), hard_link("b", "a"))
    found = shown(layer, changeset(file("e", b"other")))
    for name in (b"d/f", b"d/l", b"d/p"):
        assert found[b"layers/0/" + name].nid == found[b"rootfs/" + name].nid
    assert found[b"layers/1/e"].nid == found[b"rootfs/e"].nid
    assert found[b"layers/0/d"].nid != found[b"rootfs/d"].nid
    names = {found[tree + name].nid for tree in (b"layers/0/", b"rootfs/") for name in (b"a", b"b")}
    assert len(names) == 2
    assert found[b"layers/0/a"].nlink == 2


def test_a_file_with_a_link_from_an_upper_layer_is_not_shared() -> None:
    found = shown(changeset(file("f", b"data")), changeset(hard_link("h", "f")))
    assert found[b"rootfs/h"].nid == found[b"rootfs/f"].nid != found[b"layers/0/f"].nid
    assert (found[b"rootfs/f"].nlink, found[b"layers/0/f"].nlink) == (2, 1)
    assert b"layers/1/h" not in found


def test_a_layer_that_is_listed_twice_has_its_files_once() -> None:
    with all_indexed([changeset(file("d/f", b"data"), file("a"), hard_link("b", "a"))]) as (files,):
        found = check(stack_view([files, files])).erofs.shown
    assert len({found[tree + b"/d/f"].nid for tree in (b"layers/0", b"layers/1", b"rootfs")}) == 1
    assert len({found[tree + b"/a"].nid for tree in (b"layers/0", b"layers/1", b"rootfs")}) == 3


def test_layers_that_hide_each_other() -> None:
    lower = changeset(file("a/x"), file("a/y", b"1"), file("b/x"), file("c"), symlink("s", "a"), folder("d/e/f"))
    upper = changeset(whiteout("a/x"), opaque("b"), file("b/z"), whiteout("c"), file("s/n"), file("d/e"))
    found = shown(lower, upper)
    assert {path for path in found if path.startswith(b"rootfs/")} == {
        b"rootfs/" + path for path in (b"a", b"a/y", b"b", b"b/z", b"s", b"s/n", b"d", b"d/e")
    }


def test_a_directory_with_the_name_of_a_long_whiteout_is_not_shown() -> None:
    """No file system of Linux finds a name of 256 bytes; a whiteout of a long name is as long."""
    for length in (251, 252):
        found = shown(changeset(file(f".wh.{'x' * length}/f")))
        assert (b"rootfs/.wh." + b"x" * length in found) is (length == 251)


def test_symbolic_links_that_are_kept_inside_differ_by_their_depth() -> None:
    layer = changeset(symlink("l", "/x"), symlink("d/e/l", "/x"), hard_link("d/h", "l"), symlink("d/r", "r"))
    with all_indexed([layer, changeset(hard_link("d/e/lower", "l"))]) as files:
        made = check(stack_view(files, transform_symlinks=True))
        found = made.erofs.shown
        targets = {name: made.erofs.read(found[b"rootfs/" + name], 0, 99) for name in (b"l", b"d/e/l", b"d/h")}
    assert targets == {b"l": b"x", b"d/e/l": b"../../x", b"d/h": b"../x"}


def test_70000_links_of_one_file() -> None:
    check(nodes(f=RegularFile(Attributes(0o644, 0, 0, 0, nlink=70_000), Literal(b"data"))))
    names = [f"d{number // 100}/{number}" for number in range(500)]
    found = shown(changeset(file(names[0], b"data"), *(hard_link(name, names[0]) for name in names[1:])))
    assert found[b"rootfs/d4/499"].nlink == 500
    assert len({inode.nid for inode in found.values() if inode.type == stat.S_IFREG}) == 2


def test_127_layers() -> None:
    layers = [changeset(file(f"f{number}", b"%d" % number), file("same", b"%d" % number)) for number in range(127)]
    found = shown(*layers)
    assert len([path for path in found if path.startswith(b"rootfs/")]) == 128
    assert found[b"rootfs/same"].nid == found[b"layers/126/same"].nid


@pytest.mark.parametrize(
    "overrides",
    [Overrides(uid=7), Overrides(gid=8), Overrides(umask=0o27), Overrides(uid=(1 << 32) - 2, gid=0, umask=0o777)],
    ids=repr,
)
def test_owners_and_modes_of_the_options(overrides: Overrides) -> None:
    layer = changeset(
        file("f", b"x", About(mode=0o4755, uid=1, gid=2)),
        folder("d"),
        symlink("l", "f"),
        hard_link("h", "f"),
        fifo("p"),
    )
    with all_indexed([layer]) as files:
        found = check(stack_view(files), overrides).erofs.shown
    if overrides.umask == 0o27:
        assert {oct(found[b"rootfs/" + name].mode) for name in (b"f", b"d", b"l")} == {
            "0o100750",
            "0o40750",
            "0o120777",
        }


def test_permissions_of_the_root_are_for_its_own_owner_whatever_the_options_are() -> None:
    root = Directory(Attributes(0o555, 3, 4, 0), {b"f": RegularFile(Attributes(0o600, 5, 5, 0), Literal(b""))})
    out = io.BytesIO()
    write(root, out, Overrides(uid=1000, gid=1000, umask=0), 0o500)
    found = Erofs(out.getvalue(), []).shown
    assert [(inode.mode & 0o7777, inode.uid, inode.gid) for inode in found.values()] == [
        (0o500, 3, 4),
        (0o777, 1000, 1000),
    ]


def test_what_a_view_does_not_list_is_listed() -> None:
    link = Symlink(_FILE, b"../x")
    root = nodes(blobs=Directory(FOLDER, {b"b": RegularFile(_FILE, Literal(b""))}, {b"a": link}))
    assert set(check(root).erofs.shown) == {b"", b"blobs", b"blobs/a", b"blobs/b"}


def test_lazy_directories_are_made_and_keep_their_attributes_if_these_are_settled() -> None:
    def tree() -> KnownTree:
        inner = LazyDirectory(Attributes(0o711, 3, 3, 3), lambda: KnownTree(nodes(deep=Symlink(_FILE, b"x"))))
        return KnownTree(Directory(Attributes(0o700, 9, 9, 9), {b"inner": inner}, xattrs=((b"user.a", b"1"),)))

    settled, other = (LazyDirectory(Attributes(0o755, 1, 1, 1), tree, settled=settled) for settled in (True, False))
    found = check(nodes(settled=settled, other=other, x=nodes())).erofs.shown
    assert [found[name].uid for name in (b"settled", b"other", b"settled/inner", b"other/inner")] == [1, 9, 3, 3]
    assert b"other/inner/deep" in found


def test_trees_without_a_view_around_them_are_not_shared_by_mistake() -> None:
    """A merged tree whose layers are shown nowhere else, as of an image without layers."""
    with all_indexed([changeset(file("f", b"data"))]) as files:
        tree = RootfsTree(files, transform_symlinks=False)
        check(nodes(rootfs=LazyDirectory(FOLDER, lambda: tree, settled=False)))


def test_xattrs_of_the_view_come_before_those_of_the_layer() -> None:
    layer = changeset(folder(".", About(mode=0o755, xattrs={b"user.oci.digest": b"forged", b"user.own": b"1"})))
    with all_indexed([layer]) as (files,):
        tree = LayerTree(files, transform_symlinks=False, xattrs=((b"user.oci.digest", b"right"),))
        made = check(nodes(layer=LazyDirectory(FOLDER, lambda: tree, settled=False)))
        found = made.erofs.xattrs(made.erofs.shown[b"layer"])
    assert found == {b"user.oci.digest": b"right", b"user.own": b"1"}


def test_the_same_view_gives_the_same_bytes() -> None:
    with all_indexed([changeset(file("d/f", b"data"), hard_link("h", "d/f"), symlink("l", "x"))]) as files:
        written = []
        for _ in range(2):
            out = io.BytesIO()
            write(stack_view(files), out)
            written.append(out.getvalue())
    assert written[0] == written[1]


@pytest.mark.parametrize("a_directory", [10, 10_000])
def test_memory_is_a_few_numbers_for_each_member(a_directory: int) -> None:
    count = 10_000
    members = (file(f"{number // a_directory}/a-name-of-this-length-{number}") for number in range(count))
    with all_indexed([changeset(*members)]) as files, open(os.devnull, "wb", buffering=0) as out:
        view = stack_view(files)
        tracemalloc.start()
        try:
            write(view, out)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1_300_000 + 20 * count  # a MiB is the buffer


def test_the_superblock_is_written_last() -> None:
    """Metadata that were cut off, or that did not fit, are no file system."""
    with ExitStack() as stack:
        short = Extent(OpenFile(stack.enter_context(on_disk(bytes(10))), "x"), 0, 600)
        out = io.BytesIO()
        with pytest.raises(Unfit):
            write(nodes(a=RegularFile(_FILE, Literal(bytes(5000))), b=RegularFile(_FILE, short)), out)
        assert out.getvalue()[1024:1152].strip(b"\0") == b""


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        write(nodes(f=RegularFile(_FILE, Literal(bytes(5000)))), full)
