"""Attributes of FUSE replies, with the owners and modes that replace those of the image."""

from typing import TYPE_CHECKING

from fusefs.tree.node import Stat
from fusefs.tree.overrides import Overrides

if TYPE_CHECKING:
    from pyfuse3 import EntryAttributes


def fill(entry: "EntryAttributes", inode: int, stat: Stat, overrides: Overrides) -> None:
    """Copy *stat* into *entry*, with *overrides*; timeouts and the block size are set already."""
    entry.st_ino = inode
    entry.st_mode = overrides.mode(stat)
    entry.st_nlink = stat.nlink
    entry.st_uid, entry.st_gid = overrides.owner(stat)
    entry.st_size = stat.size
    entry.st_blocks = stat.blocks
    entry.st_rdev = stat.rdev
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = stat.mtime_ns
