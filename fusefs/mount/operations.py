"""FUSE requests, translated: inode to node, exception to errno.  Decides nothing."""

import errno
import functools
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Sequence
from itertools import count
from stat import S_IFDIR, S_ISDIR
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar
from weakref import WeakSet

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData, readdir_reply

from fusefs.content.protocol import Content
from fusefs.errors import ImgfsError, NoSpace
from fusefs.mount.inodes import Inodes, Place
from fusefs.mount.overrides import Overrides
from fusefs.mount.status import BytesRead
from fusefs.mount.throttled_log import Repeats
from fusefs.tree.listing import LARGE
from fusefs.tree.node import Directory, KnownTree, LazyDirectory, Node, RegularFile, Symlink

log = logging.getLogger(__name__)

_FOREVER = 10.0 * 365 * 86400
"""Seconds that the kernel may keep what it was told: an image cannot change."""
_BLOCK = 4096
"""st_blksize and f_bsize in bytes."""
_MAX_NAME = 255
_MAX_TARGET = 4095
"""Bytes of a link's target that the kernel takes; what keeps it in the mount makes it longer."""
_MAX_READ = 1 << 20
"""Bytes that the kernel asks for at once, at most."""
_DOTS = 2
"""Entries before those of a tree: ``.`` and ``..``."""
_COLD_READS = 64
"""Threads that may wait for a disk at the same time."""
_LISTING_THREADS = 4
"""Threads that may list large directories at the same time."""
_LISTINGS = 16
"""Of large directories that are kept while they are read: each comes in many pieces."""

_repeats = Repeats(log)
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
            _repeats.tell(handler.__name__, error)
            raise FUSEError(errno.ENOSPC if error.errno == errno.ENOSPC else errno.EIO) from None
        except ImgfsError as error:
            if isinstance(error, NoSpace):  # tried anew at every look
                _repeats.tell_message(str(error))
            elif error not in _told:  # what is wrong with an image is raised again at every look
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


class Operations(pyfuse3.Operations):
    """The handlers.  All of it runs in one thread, the event loop's."""

    def __init__(self, root: Directory, overrides: Overrides, ready: Callable[[], None], bytes_read: BytesRead) -> None:
        """Serve the tree below *root*; *ready* is called once the kernel has opened the connection."""
        super().__init__()
        self._view = KnownTree(root)
        self._inodes = Inodes(self._view)
        self._overrides = overrides
        self._ready = ready
        self._bytes_read = bytes_read
        self._open: dict[int, Content] = {}
        self._handles = count(1)
        self._listings: dict[int, Sequence[tuple[bytes, int]]] = {}
        self._listers: Counter[int] = Counter()
        # For one read after the other: the reply is copied before anything else runs.
        self._buffer = memoryview(bytearray(_MAX_READ))
        self._cold_reads = trio.CapacityLimiter(_COLD_READS)
        # One for each directory of the view at most; the work behind them has limits of its own.
        self._first_looks = trio.CapacityLimiter(math.inf)
        self._listing_threads = trio.CapacityLimiter(_LISTING_THREADS)
        self._makings: dict[Hashable, _Making[Any]] = {}

    def init(self) -> None:
        """Say that requests are answered from now on."""
        self._ready()

    def _node(self, inode: int) -> Node:
        node = self._inodes.node(inode)
        if node is None:
            raise FUSEError(errno.ESTALE)
        return node

    def _stat(self, inode: int) -> EntryAttributes:
        stat = self._inodes.stat(inode)
        if stat is None:
            raise FUSEError(errno.ESTALE)
        entry = _new_entry()
        self._overrides.fill(entry, inode, stat)
        lazy = self._inodes.unmade(inode)
        if lazy is not None and not lazy.settled:  # the layers' own attributes are known once someone has looked in
            entry.attr_timeout = 0
        return entry

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
        self._inodes.add(inode, await self._once(lazy, lazy.fill, self._first_looks))
        return self._place(inode)

    async def _once(self, what: Hashable, make: Callable[[], _R], limiter: trio.CapacityLimiter) -> _R:
        """Return what *make* returns in a thread; who asks for the same meanwhile gets the same, without a thread."""
        making: _Making[_R] | None = self._makings.get(what)
        if making is not None:
            return await making.wait()
        making = self._makings[what] = _Making(make)
        try:
            return await making.run(limiter)
        finally:
            del self._makings[what]

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
        return not mode & os.X_OK or S_ISDIR(permissions) or bool(permissions & 0o111)

    @_answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:  # noqa: ARG002
        """Return where a symbolic link leads."""
        node = self._node(inode)
        if not isinstance(node, Symlink):
            raise FUSEError(errno.EINVAL)
        if len(node.target) > _MAX_TARGET:
            raise FUSEError(errno.ENAMETOOLONG)
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
        node.content.check()
        handle = next(self._handles)
        self._open[handle] = node.content
        return FileInfo(fh=handle, keep_cache=True)

    @_answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return the bytes at once if that cannot block, from a thread otherwise."""
        content = self._open[fh]
        data = content.read_cached(off, size, self._buffer)
        if data is None:
            data = await trio.to_thread.run_sync(
                content.read_at, off, size, limiter=self._cold_reads, abandon_on_cancel=True
            )
        self._bytes_read.total += len(data)
        return data  # type: ignore[return-value]  # pyfuse3 takes any buffer

    @_answered
    async def release(self, fh: int) -> None:
        """Forget an open file."""
        del self._open[fh]

    @_answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:  # noqa: ARG002
        """Give a directory out; its handle is the inode number."""
        self._place(inode)
        self._listers[inode] += 1
        return inode

    @_answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List ``.``, ``..`` and the entries from the *start_id*-th on."""
        place = await self._directory(fh)
        listing = await self._listing(fh, place)
        if start_id < _DOTS and not self._list_dots(fh, start_id, token):
            return
        if place.tree.has_lazy:  # the attributes of lazy directories change at their first access
            for position in range(max(0, start_id - _DOTS), len(listing)):
                name, number = listing[position]
                if not readdir_reply(token, name, self._stat(place.inode(number)), position + _DOTS + 1):
                    return
            return
        # The kernel takes a copy of each entry, so one object serves all.
        entry, base, stat = _new_entry(), place.base, place.tree.stat
        for position in range(max(0, start_id - _DOTS), len(listing)):
            name, number = listing[position]
            self._overrides.fill(entry, base + number, stat(number))
            if not readdir_reply(token, name, entry, position + _DOTS + 1):
                return

    async def _listing(self, directory: int, place: Place) -> Sequence[tuple[bytes, int]]:
        """Return the entries of a directory; a thread makes those of a large one, for all of its pieces."""
        tree, number = place.tree, place.number
        if tree.size(number) < LARGE:
            return tree.listing(number)
        listing = self._listings.get(directory)
        if listing is None:
            listing = await self._once(directory, functools.partial(tree.listing, number), self._listing_threads)
            if directory not in self._listings:  # else it is there for another who waited
                while len(self._listings) >= _LISTINGS:
                    del self._listings[next(iter(self._listings))]
                self._listings[directory] = listing
        return listing

    def _list_dots(self, directory: int, start_id: int, token: ReaddirToken) -> bool:
        """List ``.`` and ``..``, of which the kernel takes the number and the type alone; False if that is all."""
        for position, name, inode in ((1, b".", directory), (2, b"..", self._inodes.parent(directory))):
            entry = EntryAttributes()
            entry.st_ino, entry.st_mode = inode, S_IFDIR
            if position > start_id and not readdir_reply(token, name, entry, position):
                return False
        return True

    @_answered
    async def releasedir(self, fh: int) -> None:
        """Forget what was kept of a directory that nobody reads any more."""
        self._listers[fh] -= 1
        if not self._listers[fh]:
            del self._listers[fh]
            self._listings.pop(fh, None)

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


class _Making(Generic[_R]):
    """Something that is made in a thread, and those who wait for it without holding one."""

    def __init__(self, make: Callable[[], _R]) -> None:
        self._make = make
        self._ended = trio.Event()
        self._made: tuple[_R] | None = None
        self._failed: Exception | None = None

    async def run(self, limiter: trio.CapacityLimiter) -> _R:
        try:
            made = await trio.to_thread.run_sync(self._make, limiter=limiter, abandon_on_cancel=True)
        except Exception as error:
            self._failed = error
            raise
        else:
            self._made = (made,)
            return made
        finally:
            self._ended.set()

    async def wait(self) -> _R:
        await self._ended.wait()
        if self._made is None:
            # One log line is enough for all who waited.
            raise FUSEError(errno.ENOSPC if isinstance(self._failed, NoSpace) else errno.EIO)
        return self._made[0]


def _new_entry() -> EntryAttributes:
    """Return attributes that the kernel may keep for ever."""
    entry = EntryAttributes()
    entry.entry_timeout = entry.attr_timeout = _FOREVER
    entry.st_blksize = _BLOCK
    return entry


_NEGATIVE = EntryAttributes()
_NEGATIVE.st_ino = 0
_NEGATIVE.entry_timeout = _FOREVER
