"""The view of an image as a kernel mount shows the same as its FUSE mount."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.erofs.writer import write
from fusefs.image.opened import Opened
from fusefs.mount.kernel.attach import attach, check_contents
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.support import Backing
from fusefs.mount.status import BytesRead, image_xattrs, process_xattrs
from fusefs.mount.view import ViewOptions, image_view
from fusefs.progress import Silent
from fusefs.sources import open_image
from tests.support import hostile_image
from tests.support.builders import Archive, compressed, image_config, sha256
from tests.support.changesets import About, changeset, device, file, folder, hard_link, pax_sparse, symlink
from tests.support.conformance import SETTINGS
from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.file_systems import tmpfs
from tests.support.mounts import Bench

NS = 1_500_000_000_123456789
MORE = changeset(
    folder("./", About(mode=0o1777, uid=1, gid=2, mtime_ns=NS)),
    file("suid", b"#!\n", About(mode=0o6755, uid=4_294_967_294, mtime_ns=-NS, xattrs={b"user.a": b"\xff\0"})),
    file("etc/big", bytes(range(256)) * 4000),
    pax_sparse("1.0", "sparse", 8 << 20, [(0, b"a" * 1000), (1 << 20, b"b" * 5000)]),
    device("disk", "b", 4095, 1_048_575),
    symlink("long", "x" * 4000),
    hard_link("suid-again", "suid"),
    *(file(f"many/{number}", b"%d" % number) for number in range(300)),
)
LAYERS = (hostile_image.BASE, hostile_image.UPPER, MORE)


@contextmanager
def kernel_mount(archive: Path, place: Path) -> Iterator[int]:
    """Give a mount of the view of *archive*, with its metadata in *place*, and close it in the end."""
    opened = Opened(open_image(str(archive), SETTINGS), str(place), Silent())
    xattrs = (*image_xattrs(str(archive), str(archive)), *process_xattrs(BytesRead()))
    view = image_view(opened.image, opened.layers, ViewOptions(uid=os.getuid(), gid=os.getgid(), xattrs=xattrs))
    metadata = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
    with open(metadata, "w+b") as out:
        devices = write(view, out).devices
        out.flush()
        mount = mount_erofs(metadata, [device.descriptor for device in devices], str(archive))
    opened.close()
    try:
        yield mount
    finally:
        os.close(mount)


def _shown(top: Path) -> dict[str, tuple[object, ...]]:
    """Return all that FUSE and kernel mounts have to show alike, by path; names of one file by the first of them."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for directory, folders, files in os.walk(top):
        for path in (Path(directory), *(Path(directory, name) for name in [*folders, *files])):
            status, name = path.lstat(), os.path.relpath(path, top)
            about: list[object] = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev]
            if stat.S_ISREG(status.st_mode):
                about += [path.read_bytes(), status.st_nlink]
                about += [first.setdefault((status.st_dev, status.st_ino), name)] if status.st_nlink > 1 else []
            elif stat.S_ISLNK(status.st_mode):
                about.append(os.readlink(path))
            about.append({key: os.getxattr(path, key, follow_symlinks=False) for key in _keys(path)})
            found[name] = tuple(about)
    return found


def _keys(path: Path) -> list[str]:
    return [key for key in os.listxattr(path, follow_symlinks=False) if not key.startswith("user.imgfs.")]


@pytest.fixture(name="place", params=Backing)
def metadata_folder(imgfs: Bench, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a folder for metadata that make the mount read files, or loop devices."""
    need_kernel_mounts(request.param)
    place = imgfs.mountpoint("place")
    if request.param is Backing.FILE:
        yield place
    else:
        with tmpfs(place, "32m"):
            yield place


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_it_shows_what_fuse_shows(imgfs: Bench, place: Path, compression: str | None) -> None:
    stored = [compressed(layer, compression) if compression else layer for layer in LAYERS]
    archive = Archive(layers=stored, config=image_config(LAYERS)).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(archive, "--index")
    expected = _shown(mountpoint)
    with kernel_mount(archive, place) as mount:
        check_contents(mount, [(b"oci-layout", (mountpoint / "oci-layout").read_bytes())])
        target = os.open(imgfs.mountpoint("kernel"), os.O_PATH)
        attach(mount, target)
        os.close(target)
    found = _shown(imgfs.folder / "kernel")
    # FUSE finds links from the digests of plain tars to these, but does not list them.
    links = {f"blobs/sha256/{sha256(layer)[7:]}" for layer in LAYERS if compression}
    assert found.keys() - expected.keys() == links
    assert {name: about for name, about in found.items() if name not in links} == expected
    assert imgfs.run("umount", mountpoint, imgfs.folder / "kernel").status == 0
