"""Serves an image with FUSE, and puts a kernel mount in its own place: self_replacing ARCHIVE MOUNTPOINT FOLDER.

Prints a line when the mount is usable; a line of input makes it write the metadata into FOLDER and take over, and
print another one.  It ends as the process of any mount does: with the last open file, or by a signal.
"""

import os
import sys
import threading

from fusefs.erofs.writer import write
from fusefs.image.opened import Opened
from fusefs.mount.kernel.attach import check_contents, take_over
from fusefs.mount.kernel.erofs import mount_erofs
from fusefs.mount.mountinfo import mount_at
from fusefs.mount.mountpoint import claim_mountpoint
from fusefs.mount.session import MountOptions, serve
from fusefs.mount.status import BytesRead, image_xattrs, process_xattrs
from fusefs.mount.view import ViewOptions, image_view
from fusefs.oci.documents import LAYOUT
from fusefs.progress import Silent
from fusefs.sources import open_image
from fusefs.tree.node import Directory
from fusefs.tree.overrides import Overrides
from tests.support.conformance import SETTINGS


def main(archive: str, mountpoint: str, folder: str) -> None:
    """Serve."""
    opened = Opened(open_image(archive, SETTINGS), folder, Silent())
    xattrs = (*image_xattrs(archive, archive), *process_xattrs(BytesRead()))
    view = image_view(opened.image, opened.layers, ViewOptions(uid=0, gid=0, xattrs=xattrs))
    claimed = claim_mountpoint(mountpoint, {})

    def ready() -> None:
        claimed.close()
        threading.Thread(target=_replace, args=(view, archive, mountpoint, folder)).start()
        print("usable", flush=True)

    serve(view, claimed, MountOptions(archive, (), Overrides(), BytesRead()), ready)


def _replace(view: Directory, archive: str, mountpoint: str, folder: str) -> None:
    if not sys.stdin.readline():
        return
    fuse = mount_at(mountpoint)
    assert fuse is not None
    with open(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), "w+b") as out:
        devices = write(view, out).devices
        out.flush()
        mount = mount_erofs(out.fileno(), [device.descriptor for device in devices], archive)
    check_contents(mount, [(b"oci-layout", LAYOUT)])
    take_over(mount, fuse)
    os.close(mount)
    print("replaced", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
