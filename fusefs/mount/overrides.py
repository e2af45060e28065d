"""Owners and modes that a mount shows instead of those in the image."""

from stat import S_IFMT, S_ISLNK
from typing import TYPE_CHECKING, NamedTuple

from fusefs.tree.node import Stat

if TYPE_CHECKING:
    from pyfuse3 import EntryAttributes


class Overrides(NamedTuple):
    """The values of `-o uid=,gid=,umask=`; None keeps the attribute of the image."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None

    def fill(self, entry: "EntryAttributes", inode: int, stat: Stat) -> None:
        """Copy *stat* into *entry*, with these overrides; timeouts and the block size are set already."""
        mode = stat.mode
        if self.umask is not None and not S_ISLNK(mode):
            mode = S_IFMT(mode) | 0o777 & ~self.umask
        entry.st_ino = inode
        entry.st_mode = mode
        entry.st_nlink = stat.nlink
        entry.st_uid = stat.uid if self.uid is None else self.uid
        entry.st_gid = stat.gid if self.gid is None else self.gid
        entry.st_size = stat.size
        entry.st_blocks = stat.blocks
        entry.st_rdev = stat.rdev
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = stat.mtime_ns
