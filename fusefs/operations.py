"""FUSE requests, translated: inode to node, exception to errno.  Decides nothing."""

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from fusefs.inodes import Numbered, number_tree
from fusefs.tree import Directory, RegularFile

log = logging.getLogger(__name__)

_FOREVER = 10.0 * 365 * 86400
"""Seconds that the kernel may keep what it was told: an image cannot change."""
_BLOCK = 4096
"""st_blksize and f_bsize in bytes."""
_MAX_NAME = 255
_COLD_READS = 64
"""Threads that may wait for a disk at the same time."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _answered(handler: Callable[_P, Coroutine[Any, Any, _R]]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Make every exception of *handler* an errno: any but FUSEError would end the event loop.

    That would leave each client of the mount waiting for ever.
    """

    @functools.wraps(handler)
    async def answer(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except OSError as error:
            log.error("%s: %s", handler.__name__, error)  # noqa: TRY400 - no bug, so no traceback
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception:
            log.exception("%s: a bug", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return answer


async def _read_only(*_: object) -> NoReturn:
    """Refuse: the `ro` flag of the mount alone can be remounted away."""
    raise FUSEError(errno.EROFS)


class Operations(pyfuse3.Operations):
    """The handlers.  A file handle is the inode number: nothing is kept per open file.

    All of it runs in one thread, the event loop's; the table of nodes never changes.
    """

    def __init__(self, root: Directory, ready: Callable[[], None]) -> None:
        """Serve the tree below *root*; *ready* is called once the kernel has opened the connection."""
        super().__init__()
        self._table = number_tree(root)
        self._attributes = [None if item is None else _attributes(item) for item in self._table]
        self._ready = ready
        self._cold_reads = trio.CapacityLimiter(_COLD_READS)

    def init(self) -> None:
        """Say that requests are answered from now on."""
        self._ready()

    def _item(self, inode: int) -> Numbered:
        item = self._table[inode] if inode < len(self._table) else None
        if item is None:
            raise FUSEError(errno.ESTALE)
        return item

    def _stat(self, inode: int) -> EntryAttributes:
        attributes = self._attributes[self._item(inode).number]
        assert attributes is not None
        return attributes

    @_answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *name*, or a negative entry that is kept as long."""
        parent = self._item(parent_inode)
        match name:
            case b".":
                number: int | None = parent_inode
            case b"..":
                number = parent.parent
            case _:
                number = parent.entries.get(name)
        return _NEGATIVE if number is None else self._stat(number)

    @_answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *inode*."""
        return self._stat(inode)

    @_answered
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:  # noqa: ARG002
        """Answer access(2) as the kernel does for root on a read-only file system."""
        if mode & os.W_OK:
            raise FUSEError(errno.EROFS)
        return not mode & os.X_OK or bool(self._stat(inode).st_mode & 0o111)

    @_answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:  # noqa: ARG002
        """Give a file out for reading; its pages stay cached from one open to the next."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        self._item(inode)
        return FileInfo(fh=inode, keep_cache=True)

    @_answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return the bytes at once if that cannot block, from a thread otherwise."""
        node = self._item(fh).node
        if not isinstance(node, RegularFile):
            raise FUSEError(errno.EISDIR)
        data = node.content.read_cached(off, size)
        if data is None:
            data = await trio.to_thread.run_sync(
                node.content.read_at, off, size, limiter=self._cold_reads, abandon_on_cancel=True
            )
        return data  # type: ignore[return-value]  # pyfuse3 takes any buffer

    @_answered
    async def release(self, fh: int) -> None:
        """Nothing is kept per open file."""

    @_answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:  # noqa: ARG002
        """Open a directory."""
        self._item(inode)
        return inode

    @_answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List ``.``, ``..`` and the entries from the *start_id*-th on."""
        item = self._item(fh)
        listing = [(b".", fh), (b"..", item.parent), *item.entries.items()]
        for position, (name, number) in enumerate(listing[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, self._stat(number), position):
                return

    @_answered
    async def releasedir(self, fh: int) -> None:
        """Nothing is kept per open directory."""

    @_answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:  # noqa: ARG002
        """Describe a full file system: `df` shows what the files take together."""
        stats = [attributes for attributes in self._attributes if attributes is not None]
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks = sum(-(-attributes.st_size // _BLOCK) for attributes in stats)
        data.f_files = len(stats)
        data.f_namemax = _MAX_NAME
        return data

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _read_only  # type: ignore[assignment]
    write = create = setxattr = removexattr = _read_only  # type: ignore[assignment]


def _attributes(item: Numbered) -> EntryAttributes:
    node = item.node
    entry = EntryAttributes()
    entry.st_ino = item.number
    entry.entry_timeout = entry.attr_timeout = _FOREVER
    match node:
        case Directory():
            # Link count 1 is "unknown", as on btrfs: find(1) then counts no subdirectories.
            entry.st_mode = stat.S_IFDIR | node.attributes.permissions
        case RegularFile():
            entry.st_mode = stat.S_IFREG | node.attributes.permissions
            entry.st_size = node.content.size
            entry.st_blocks = -(-node.content.size // 512)
    entry.st_nlink = 1
    entry.st_blksize = _BLOCK
    entry.st_uid, entry.st_gid = node.attributes.uid, node.attributes.gid
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.attributes.mtime_ns
    return entry


_NEGATIVE = EntryAttributes()
_NEGATIVE.st_ino = 0
_NEGATIVE.entry_timeout = _FOREVER
