"""Puts a kernel mount in the place of a mount: take_over MOUNTPOINT METADATA DEVICE, the last two open files."""

import sys

from fusefs.mount.kernel.attach import take_over
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.mountinfo import mount_at


def main() -> None:
    """Take over."""
    mountpoint, metadata, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    old = mount_at(mountpoint)
    assert old is not None
    take_over(mount_erofs(metadata, [device], "nginx"), old)


if __name__ == "__main__":
    main()
