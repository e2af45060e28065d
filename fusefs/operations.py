"""FUSE requests, translated: inode to node, exception to errno.  Decides nothing."""

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from fusefs.errors import ImgfsError, NoSpace
from fusefs.inodes import Inodes, Numbered
from fusefs.tree import Directory, LazyDirectory, RegularFile, Symlink

log = logging.getLogger(__name__)

_FOREVER = 10.0 * 365 * 86400
"""Seconds that the kernel may keep what it was told: an image cannot change."""
_BLOCK = 4096
"""st_blksize and f_bsize in bytes."""
_MAX_NAME = 255
_COLD_READS = 64
"""Threads that may wait for a disk at the same time."""
_FIRST_LOOKS = 4
"""Threads that may make the entries of a directory at the same time."""

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
        except ImgfsError as error:
            log.error("%s", error)  # noqa: TRY400 - no bug, so no traceback
            raise FUSEError(errno.ENOSPC if isinstance(error, NoSpace) else errno.EIO) from None
        except Exception:
            log.exception("%s: a bug", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return answer


async def _read_only(*_: object) -> NoReturn:
    """Refuse: the `ro` flag of the mount alone can be remounted away."""
    raise FUSEError(errno.EROFS)


class Operations(pyfuse3.Operations):
    """The handlers.  A file handle is the inode number: nothing is kept per open file.

    All of it runs in one thread, the event loop's.
    """

    def __init__(self, root: Directory, ready: Callable[[], None]) -> None:
        """Serve the tree below *root*; *ready* is called once the kernel has opened the connection."""
        super().__init__()
        self._inodes = Inodes(root)
        self._attributes = {item.number: _attributes(item) for item in self._inodes}
        self._ready = ready
        self._cold_reads = trio.CapacityLimiter(_COLD_READS)
        self._first_looks = trio.CapacityLimiter(_FIRST_LOOKS)
        self._looking: dict[int, _FirstLook] = {}

    def init(self) -> None:
        """Say that requests are answered from now on."""
        self._ready()

    def _item(self, inode: int) -> Numbered:
        item = self._inodes.get(inode)
        if item is None:
            raise FUSEError(errno.ESTALE)
        return item

    def _stat(self, inode: int) -> EntryAttributes:
        return self._attributes[self._item(inode).number]

    async def _directory(self, inode: int) -> Numbered:
        """Return a directory with its entries; who looks first has them made, the others wait for that."""
        item = self._item(inode)
        if not self._inodes.waits(item):
            return item
        look = self._looking.get(inode)
        if look is None:
            look = self._looking[inode] = _FirstLook()
            try:
                await look.make(item, self._inodes, self._first_looks)
            finally:
                del self._looking[inode]
            for number in self._item(inode).entries.values():
                self._attributes[number] = _attributes(self._item(number))
        else:
            await look.wait()
        return self._item(inode)

    @_answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *name*, or a negative entry that is kept as long."""
        parent = await self._directory(parent_inode)
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
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:  # noqa: ARG002
        """Return where a symbolic link leads."""
        node = self._item(inode).node
        if not isinstance(node, Symlink):
            raise FUSEError(errno.EINVAL)
        return node.target

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
        item = await self._directory(fh)
        listing = [(b".", fh), (b"..", item.parent), *islice(item.entries.items(), item.listed)]
        for position, (name, number) in enumerate(listing[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, self._stat(number), position):
                return

    @_answered
    async def releasedir(self, fh: int) -> None:
        """Nothing is kept per open directory."""

    @_answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:  # noqa: ARG002
        """Describe a full file system: `df` shows what the files take together."""
        stats = self._attributes.values()
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks = sum(-(-attributes.st_size // _BLOCK) for attributes in stats)
        data.f_files = len(stats)
        data.f_namemax = _MAX_NAME
        return data

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _read_only  # type: ignore[assignment]
    write = create = setxattr = removexattr = _read_only  # type: ignore[assignment]


class _FirstLook:
    """One making of a directory's entries, and those who wait for it without holding a thread."""

    def __init__(self) -> None:
        self._made = trio.Event()
        self._failed: Exception | None = None

    async def make(self, item: Numbered, inodes: Inodes, limiter: trio.CapacityLimiter) -> None:
        assert isinstance(item.node, LazyDirectory)
        try:
            entries = await trio.to_thread.run_sync(item.node.fill, limiter=limiter, abandon_on_cancel=True)
            inodes.add(item.number, entries)
        except Exception as error:
            self._failed = error
            raise
        finally:
            self._made.set()

    async def wait(self) -> None:
        await self._made.wait()
        if self._failed is not None:
            # One log line is enough for all who waited.
            raise FUSEError(errno.ENOSPC if isinstance(self._failed, NoSpace) else errno.EIO)


def _attributes(item: Numbered) -> EntryAttributes:
    node = item.node
    entry = EntryAttributes()
    entry.st_ino = item.number
    entry.entry_timeout = entry.attr_timeout = _FOREVER
    match node:
        case Directory() | LazyDirectory():
            # Link count 1 is "unknown", as on btrfs: find(1) then counts no subdirectories.
            entry.st_mode = stat.S_IFDIR | node.attributes.permissions
        case RegularFile():
            entry.st_mode = stat.S_IFREG | node.attributes.permissions
            entry.st_size = node.content.size
            entry.st_blocks = -(-node.content.size // 512)
        case Symlink():
            entry.st_mode = stat.S_IFLNK | node.attributes.permissions
            entry.st_size = len(node.target)
    entry.st_nlink = 1
    entry.st_blksize = _BLOCK
    entry.st_uid, entry.st_gid = node.attributes.uid, node.attributes.gid
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.attributes.mtime_ns
    return entry


_NEGATIVE = EntryAttributes()
_NEGATIVE.st_ino = 0
_NEGATIVE.entry_timeout = _FOREVER
