"""Owners and modes that a mount shows instead of those in the image."""

from stat import S_IFMT, S_ISLNK
from typing import NamedTuple

from fusefs.tree.node import Stat


class Overrides(NamedTuple):
    """The values of `-o uid=,gid=,umask=`; None keeps the attribute of the image."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None

    def mode(self, stat: Stat) -> int:
        """Return the st_mode to show; symbolic links keep theirs."""
        mode = stat.mode
        if self.umask is None or S_ISLNK(mode):
            return mode
        return S_IFMT(mode) | 0o777 & ~self.umask

    def owner(self, stat: Stat) -> tuple[int, int]:
        """Return the uid and gid to show."""
        return stat.uid if self.uid is None else self.uid, stat.gid if self.gid is None else self.gid
