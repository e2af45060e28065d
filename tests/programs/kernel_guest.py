"""Kernel mounts on the kernel of a virtual machine, of which this is the only program: without pytest or FUSE.

``/memory`` is a ramfs, whose files a kernel can read EROFS metadata from, and ``/dev/shm`` a tmpfs, whose files need
loop devices.  The last line is printed if everything is right.
"""

import os
import subprocess
import time
from pathlib import Path

from fusefs.mount.kernel.attach import attach, check_contents, take_over
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.kernel.support import Backing, backing_here, can_mount_beneath
from fusefs.mount.mountinfo import mount_at
from tests.support.erofs_images import BLOCK, ErofsImage, bound_loop_devices, open_files

DATA = os.urandom(8 << 20)
IMAGE = ErofsImage({b"a": b"inline"}, {b"b": (1, 1000), b"big": (0, len(DATA))}, len(DATA) // BLOCK, {b"x": b"y"})
KNOWN = [(b"a", b"inline"), (b"b", DATA[BLOCK : BLOCK + 1000]), (b"big", DATA)]
MEMORY, SHARED = Path("/memory"), Path("/dev/shm")
MOUNTPOINT = SHARED / "mnt"
"""Nothing can be mounted beneath a mount on the initial ramfs itself."""


def main() -> None:
    """Check all."""
    backing = backing_here()
    print(os.uname().release, os.uname().version, backing, flush=True)
    MOUNTPOINT.mkdir()
    Path("/srv").mkdir(exist_ok=True)
    for place, loops in ((MEMORY, 0 if backing is Backing.FILE else 2), (SHARED, 2)):
        for source in ("nginx", "docker.io/a/b", "/srv/x.tar"):
            check_mount(place, source, loops)
    if can_mount_beneath(os.uname().release, os.uname().version):
        check_taking_over()
    print("all is right", flush=True)


def check_mount(place: Path, source: str, loops: int) -> None:
    """Mount, compare, unmount."""
    with open_files(place, IMAGE.metadata(), DATA) as (metadata, device):
        mount = mount_erofs(metadata, [device], source)
    assert len(bound_loop_devices(place)) == loops
    check_contents(mount, KNOWN)
    directory = os.open(MOUNTPOINT, os.O_PATH)
    attach(mount, directory)
    os.close(directory)
    os.close(mount)
    found = mount_at(str(MOUNTPOINT))
    assert found is not None
    assert (found.file_system, found.source) == ("erofs", source)
    assert os.getxattr(MOUNTPOINT, "user.x") == b"y"
    subprocess.run(["umount", MOUNTPOINT], check=True)
    deadline = time.monotonic() + 10
    while bound_loop_devices(place):
        assert time.monotonic() < deadline, bound_loop_devices(place)


def check_taking_over() -> None:
    """Put a kernel mount in the place of another mount, in a shared tree."""
    subprocess.run(["mount", "-t", "tmpfs", "t", MOUNTPOINT], check=True)
    old = mount_at(str(MOUNTPOINT))
    assert old is not None
    with open_files(MEMORY, IMAGE.metadata(), DATA) as (metadata, device):
        mount = mount_erofs(metadata, [device], "nginx")
    take_over(mount, old)
    check_contents(mount, KNOWN)
    os.close(mount)
    assert sorted(os.listdir(MOUNTPOINT)) == ["a", "b", "big"]
    subprocess.run(["umount", MOUNTPOINT], check=True)
    assert mount_at(str(MOUNTPOINT)) is None


if __name__ == "__main__":
    main()
