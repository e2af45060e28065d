"""The same image mounted by FUSE and by the kernel, with metadata that imgfs writes: no path or byte differs.

But for what docs/architecture.md lists under "Decisions: erofs".
"""

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from fusefs.content.file import Extent, OpenFile, Sparse
from fusefs.content.protocol import Literal
from fusefs.image.opened import Opened
from fusefs.mount.view import ViewOptions, image_view
from fusefs.progress import Silent
from fusefs.sources import open_image
from fusefs.tree.node import Attributes, Directory, Node, RegularFile, Symlink
from fusefs.tree.overrides import Overrides
from tests.support.builders import Archive, compressed, image_config
from tests.support.changesets import (
    About,
    changeset,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    opaque,
    pax_sparse,
    symlink,
    whiteout,
)
from tests.support.conformance import SPOOLING, closing_what_is_opened
from tests.support.erofs_views import FOLDER, on_disk
from tests.support.fsck_erofs import Fsck
from tests.support.kernel_mounts import Walked, check_mounted, kernel_mount, walked
from tests.support.layouts import Layout
from tests.support.mounts import Bench

NS = 1_500_000_000_123456789
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 7, 1000), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)
RUNS = [(0, b"a" * 1000), (1 << 20, b"b" * 5000), (5 << 20, b"c")]
BASE = changeset(
    folder("./", About(mode=0o1777, uid=1, gid=2, mtime_ns=NS)),
    folder("etc", About(mode=0o750, mtime_ns=NS)),
    *(file("etc/motd", b"old\n"), file("etc/gone", b"x"), file("suid", b"#!\n", About(mode=0o6755))),
    file("owned", b"12345", About(mode=0o640, uid=4_000_000_000, gid=4_294_967_294, mtime_ns=NS)),
    file("old", b"", About(mtime_ns=-(1 << 33) * 10**9 + 1)),
    *(file("a", b"linked"), hard_link("etc/b", "a"), hard_link("etc/c", "a")),
    *(symlink("absolute", "/etc/motd"), symlink("dangling", "nowhere"), symlink("long", "x/" * 2047)),
    *(device("null", "c", 1, 3, About(mode=0o666)), device("disk", "b", 4095, 1_048_575), fifo("pipe")),
    file("capable", b"x", About(mode=0o755, xattrs={b"security.capability": CAPABILITY, b"user.a": b"\xff\0"})),
    file("large xattrs", b"x" * 700, About(xattrs={b"user.%d" % number: b"v" * 60_000 for number in range(10)})),
    file("acl", b"x", About(mode=0o660, xattrs={b"system.posix_acl_access": ACL})),
    *(file(b"\xff\xfe not UTF-8\n\x01", b"odd"), file(b"n" * 255, b"long"), file("!", b""), file(".-", b"")),
    *(file(f"many/{number}", b"%d" % number * (number % 300)) for number in range(500)),
    gnu_sparse("sparse-gnu", 8 << 20, RUNS),
    *(pax_sparse(version, f"sparse-{version}", 8 << 20, RUNS) for version in ("0.0", "0.1", "1.0")),
)
UPPER = changeset(
    file("etc/motd", b"new\n"), whiteout("etc/gone"), folder("var/empty"), opaque("many"), file("many/x", b"1" * 513)
)
LAYERS = (BASE, UPPER, BASE, changeset(hard_link("etc/lower", "owned")))
_XATTRS = ("user.imgfs.",)


def _kernel_view(image: Path, *, transform_symlinks: bool = False) -> Directory:
    """Return the view that `imgfs mount` shows of *image*, without the attributes of the mount itself."""
    opened = Opened(open_image(str(image), SPOOLING), SPOOLING.tmpdir, Silent())
    return image_view(
        opened.image, opened.layers, ViewOptions(os.getuid(), os.getgid(), transform_symlinks=transform_symlinks)
    )


def _compare(imgfs: Bench, image: Path, options: Sequence[str] = (), overrides: Overrides = Overrides()) -> Walked:  # noqa: B008
    """Mount *image* twice and compare; return what the kernel's mount shows."""
    fuse = imgfs.mount(image, *options)
    erofs = imgfs.mountpoint("erofs")
    transform = any("transform_symlinks" in option for option in options)
    with closing_what_is_opened(), kernel_mount(_kernel_view(image, transform_symlinks=transform), erofs, overrides):
        shown = walked(erofs)
    listed = walked(fuse).paths.keys()
    unlisted = tuple(path for path in shown.paths if path not in listed)
    assert all(path.startswith("blobs/") for path in unlisted)
    expected = walked(fuse, unlisted)
    for path, there in expected.paths.items():
        xattrs = tuple(pair for pair in there.xattrs if not pair[0].startswith(_XATTRS))
        assert shown.paths[path] == there._replace(xattrs=xattrs), path
    assert shown.paths.keys() == expected.paths.keys()
    assert shown.groups == expected.groups
    return shown


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_a_docker_archive(imgfs: Bench, compression: str | None) -> None:
    archive = Archive(layers=[compressed(data, compression) for data in LAYERS], config=image_config(LAYERS))
    shown = _compare(imgfs, archive.write(imgfs.folder / "image.tar"))
    assert shown.paths["rootfs/owned"].nlink == 2
    assert frozenset({"rootfs/owned", "rootfs/etc/lower"}) in shown.groups
    assert len(shown.paths) > 1500


def test_an_image_layout_in_a_directory_whose_blobs_are_no_whole_blocks(imgfs: Bench) -> None:
    layout = Layout()
    layout.list(layout.image(LAYERS, "gzip"))
    layout.write(str(imgfs.folder / "layout"))
    assert any(path.stat().st_size % 512 for path in (imgfs.folder / "layout/blobs/sha256").iterdir())
    _compare(imgfs, imgfs.folder / "layout")


def test_more_than_8_files_with_data(imgfs: Bench) -> None:
    layers = [
        changeset(file(f"f{number}", b"%d" % number * 3000), file("same", b"%d" % number)) for number in range(12)
    ]
    archive = Archive(layers=[compressed(data, "gzip") for data in layers], config=image_config(layers))
    _compare(imgfs, archive.write(imgfs.folder / "image.tar"))


@pytest.mark.parametrize(
    ("option", "overrides"),
    [
        ("uid=1000,gid=1001", Overrides(uid=1000, gid=1001)),
        ("umask=027", Overrides(umask=0o27)),
        ("transform_symlinks", Overrides()),
    ],
)
def test_mount_options(imgfs: Bench, option: str, overrides: Overrides) -> None:
    layers = (BASE.replace(b"system.posix_acl_access", b"user.acl.not.by.a.mount"), UPPER)
    _compare(imgfs, Archive(layers=layers).write(imgfs.folder / "image.tar"), ("-o", option), overrides)


def _borders(stack: ExitStack) -> Directory:
    """Return a view of all that the format can just say."""

    def regular(data: bytes, **attributes: int) -> RegularFile:
        return RegularFile(Attributes(0o644, 0, 0, 0)._replace(**attributes), Literal(data))

    def noise(size: int) -> bytes:
        return bytes(number % 251 for number in range(size))

    def folder_of(make: Callable[[int], Node], numbers: Iterable[int]) -> Directory:
        return Directory(FOLDER, {b"%d" % number: make(number) for number in numbers})

    sizes = (1, 511, 512, 513, 10_000, 51_200)
    disk = {size: OpenFile(stack.enter_context(on_disk(noise(size))), "x") for size in sizes}
    runs = [(512 * 9, Extent(disk[51_200], 512, 512 * 8)), (512 * 64 + 7, Extent(disk[51_200], 1000, 30_000))]
    names = [b"!", b"+", b"-", b".-", b"...", b"0", b"\x01", b"\xff", *(bytes([first]) * 255 for first in b"!-a")]
    large = tuple((b"user.%d" % number, bytes([number]) * 65_535) for number in range(5))
    many = tuple((b"user.%05d" % number, b"v" * 60) for number in range(1000))
    entries: dict[bytes, Node] = {
        b"names": Directory(FOLDER, {name: regular(name) for name in names}),
        b"many": folder_of(lambda _: regular(b""), range(20_000)),
        b"documents": folder_of(lambda size: regular(noise(size)), (0, 1, 484, 485, 511, 512, 513)),
        b"links": folder_of(lambda size: Symlink(FOLDER, b"x" * size), (1, 484, 485, 511, 512, 4095)),
        b"times": folder_of(lambda at: regular(b"", mtime_ns=at * 10**9 - 1), (-(1 << 33), 0, 1 << 34, 253402300800)),
        b"owner": regular(b"", uid=70_000, gid=(1 << 32) - 2, nlink=70_000),
        b"xattrs": Directory(FOLDER, {b"d": Directory(FOLDER, xattrs=large), b"f": Directory(FOLDER, xattrs=many)}),
        b"tails": folder_of(lambda size: RegularFile(FOLDER, Extent(disk[size], 0, size), large[:1]), sizes),
        b"sparse": RegularFile(FOLDER, Sparse(1 << 33, 1 << 15, lambda: runs)),
    }
    return Directory(FOLDER, entries)


@pytest.mark.parametrize("devices", [0, 3, 130])
def test_all_borders_of_the_format(fsck: Fsck, devices: int) -> None:
    with ExitStack() as stack:
        view = _borders(stack)
        files = (OpenFile(stack.enter_context(on_disk(b"%d" % number * 512)), "x") for number in range(devices))
        more = {b"%d" % number: RegularFile(FOLDER, Extent(file, 0, 512)) for number, file in enumerate(files)}
        view = Directory(FOLDER, {**view.entries, b"more": Directory(FOLDER, more)})
        check_mounted(view)
        fsck(view)
