"""FUSE requests, translated: inode to node, exception to errno.  Decides nothing."""

import errno
import functools
import logging
import math
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakSet

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from fusefs.content import Content
from fusefs.errors import ImgfsError, NoSpace
from fusefs.inodes import Inodes, Place
from fusefs.tree import Directory, KnownTree, LazyDirectory, Node, RegularFile, Special, Symlink, Tree

log = logging.getLogger(__name__)

_FOREVER = 10.0 * 365 * 86400
"""Seconds that the kernel may keep what it was told: an image cannot change."""
_BLOCK = 4096
"""st_blksize and f_bsize in bytes."""
_MAX_NAME = 255
_DOTS = 2
"""Entries before those of a tree: ``.`` and ``..``."""
_COLD_READS = 64
"""Threads that may wait for a disk at the same time."""
_LARGE = 2000
"""Entries from which on a directory is listed in a thread."""

_told: WeakSet[ImgfsError] = WeakSet()
"""Errors that are in the log."""

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
            raise FUSEError(errno.ENOSPC if error.errno == errno.ENOSPC else errno.EIO) from None
        except ImgfsError as error:
            if error not in _told:  # what is wrong with an image is raised again at every look
                _told.add(error)
                log.error("%s", error)  # noqa: TRY400 - no bug, so no traceback
            raise FUSEError(errno.ENOSPC if isinstance(error, NoSpace) else errno.EIO) from None
        except Exception:
            log.exception("%s: a bug", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return answer


async def _read_only(*_: object) -> NoReturn:
    """Refuse: the `ro` flag of the mount alone can be remounted away."""
    raise FUSEError(errno.EROFS)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What `-o uid=,gid=,umask=` put in the place of an image's attributes; None leaves them."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None


class Operations(pyfuse3.Operations):
    """The handlers.  All of it runs in one thread, the event loop's."""

    def __init__(self, root: Directory, overrides: Overrides, ready: Callable[[], None]) -> None:
        """Serve the tree below *root*; *ready* is called once the kernel has opened the connection."""
        super().__init__()
        self._view = KnownTree(root)
        self._inodes = Inodes(self._view)
        self._overrides = overrides
        self._ready = ready
        self._open: dict[int, Content] = {}
        self._handles = count(1)
        self._cold_reads = trio.CapacityLimiter(_COLD_READS)
        # One for each directory at most; the work behind them has limits of its own.
        self._first_looks = trio.CapacityLimiter(math.inf)
        self._looking: dict[int, _FirstLook] = {}

    def init(self) -> None:
        """Say that requests are answered from now on."""
        self._ready()

    def _node(self, inode: int) -> Node:
        node = self._inodes.node(inode)
        if node is None:
            raise FUSEError(errno.ESTALE)
        return node

    def _stat(self, inode: int) -> EntryAttributes:
        return _attributes(inode, self._node(inode), self._overrides)

    def _place(self, inode: int) -> Place:
        place = self._inodes.place(inode)
        if place is None:
            raise FUSEError(errno.ESTALE)
        return place

    async def _directory(self, inode: int) -> Place:
        """Return a directory; who looks into a lazy one first has it made, the others wait for that."""
        lazy = self._inodes.unmade(inode)
        if lazy is None:
            return self._place(inode)
        look = self._looking.get(inode)
        if look is None:
            look = self._looking[inode] = _FirstLook()
            try:
                self._inodes.add(inode, await look.make(lazy, self._first_looks))
            finally:
                del self._looking[inode]
        else:
            await look.wait()
        return self._place(inode)

    @_answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *name*, or a negative entry that is kept as long."""
        match name:
            case b".":
                return self._stat(parent_inode)
            case b"..":
                return self._stat(self._inodes.parent(parent_inode))
        place = await self._directory(parent_inode)
        number = place.tree.find(place.number, name)
        return _NEGATIVE if number is None else self._stat(place.inode(number))

    @_answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *inode*."""
        return self._stat(inode)

    @_answered
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:  # noqa: ARG002
        """Answer access(2) as the kernel does for root on a read-only file system."""
        if mode & os.W_OK:
            raise FUSEError(errno.EROFS)
        permissions = self._stat(inode).st_mode
        return not mode & os.X_OK or stat.S_ISDIR(permissions) or bool(permissions & 0o111)

    @_answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:  # noqa: ARG002
        """Return where a symbolic link leads."""
        node = self._node(inode)
        if not isinstance(node, Symlink):
            raise FUSEError(errno.EINVAL)
        return node.target

    @_answered
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:  # noqa: ARG002
        """Return an extended attribute."""
        place = self._place(inode)
        for found, value in place.tree.xattrs(place.number):
            if found == name:
                return value
        raise FUSEError(pyfuse3.ENOATTR)

    @_answered
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:  # noqa: ARG002
        """Return the names of the extended attributes."""
        place = self._place(inode)
        return [name for name, _ in place.tree.xattrs(place.number)]

    @_answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:  # noqa: ARG002
        """Give a file out for reading; its pages stay cached from one open to the next."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        node = self._node(inode)
        if not isinstance(node, RegularFile):
            raise FUSEError(errno.EISDIR if isinstance(node, Directory | LazyDirectory) else errno.ENXIO)
        handle = next(self._handles)
        self._open[handle] = node.content
        return FileInfo(fh=handle, keep_cache=True)

    @_answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return the bytes at once if that cannot block, from a thread otherwise."""
        content = self._open[fh]
        data = content.read_cached(off, size)
        if data is None:
            data = await trio.to_thread.run_sync(
                content.read_at, off, size, limiter=self._cold_reads, abandon_on_cancel=True
            )
        return data  # type: ignore[return-value]  # pyfuse3 takes any buffer

    @_answered
    async def release(self, fh: int) -> None:
        """Forget an open file."""
        del self._open[fh]

    @_answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:  # noqa: ARG002
        """Give a directory out; its handle is the inode number."""
        self._node(inode)
        return inode

    @_answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List ``.``, ``..`` and the entries from the *start_id*-th on."""
        place = await self._directory(fh)
        if place.tree.size(place.number) < _LARGE:
            listing = place.tree.listing(place.number)
        else:
            listing = await trio.to_thread.run_sync(
                place.tree.listing, place.number, limiter=self._first_looks, abandon_on_cancel=True
            )
        for position, (name, inode) in enumerate(((b".", fh), (b"..", self._inodes.parent(fh))), 1):
            if position > start_id and not pyfuse3.readdir_reply(token, name, self._stat(inode), position):
                return
        for position in range(max(0, start_id - _DOTS), len(listing)):
            name, number = listing[position]
            if not pyfuse3.readdir_reply(token, name, self._stat(place.inode(number)), position + _DOTS + 1):
                return

    @_answered
    async def releasedir(self, fh: int) -> None:
        """Nothing is kept per open directory."""

    @_answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:  # noqa: ARG002
        """Describe a full file system: `df` shows what the files of the image take together."""
        nodes = [self._view.node(number) for number in range(len(self._view))]
        sizes = [node.content.size for node in nodes if isinstance(node, RegularFile)]
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks = sum(-(-size // _BLOCK) for size in sizes)
        data.f_files = len(nodes)
        data.f_namemax = _MAX_NAME
        return data

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _read_only  # type: ignore[assignment]
    write = create = setxattr = removexattr = _read_only  # type: ignore[assignment]


class _FirstLook:
    """One making of a directory's tree, and those who wait for it without holding a thread."""

    def __init__(self) -> None:
        self._made = trio.Event()
        self._failed: Exception | None = None

    async def make(self, lazy: LazyDirectory, limiter: trio.CapacityLimiter) -> Tree:
        try:
            return await trio.to_thread.run_sync(lazy.fill, limiter=limiter, abandon_on_cancel=True)
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


def _attributes(inode: int, node: Node, overrides: Overrides) -> EntryAttributes:
    attributes = node.attributes
    permissions = attributes.permissions
    entry = EntryAttributes()
    entry.st_ino = inode
    entry.entry_timeout = entry.attr_timeout = _FOREVER
    if overrides.umask is not None and not isinstance(node, Symlink):
        permissions = 0o777 & ~overrides.umask
    match node:
        case Directory():
            # Link count 1 is "unknown", as on btrfs: find(1) then counts no subdirectories.
            entry.st_mode = stat.S_IFDIR | permissions
        case LazyDirectory():
            entry.st_mode = stat.S_IFDIR | permissions
            if not node.settled:  # the layers' own attributes are known once someone has looked in
                entry.attr_timeout = 0
        case RegularFile():
            entry.st_mode = stat.S_IFREG | permissions
            entry.st_size = node.content.size
            entry.st_blocks = -(-node.content.stored // 512)
        case Symlink():
            entry.st_mode = stat.S_IFLNK | permissions
            entry.st_size = len(node.target)
        case Special():
            entry.st_mode = node.type | permissions
            entry.st_rdev = node.rdev
    entry.st_nlink = attributes.nlink
    entry.st_blksize = _BLOCK
    entry.st_uid = attributes.uid if overrides.uid is None else overrides.uid
    entry.st_gid = attributes.gid if overrides.gid is None else overrides.gid
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.mtime_ns
    return entry


_NEGATIVE = EntryAttributes()
_NEGATIVE.st_ino = 0
_NEGATIVE.entry_timeout = _FOREVER
