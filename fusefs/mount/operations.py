"""FUSE request handlers: they translate inode numbers to nodes and exceptions to error numbers, and decide nothing."""

import errno
import functools
import math
import os
import struct
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from stat import S_IFDIR, S_ISDIR
from typing import Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakSet

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData, readdir_reply

from fusefs.content.protocol import Content
from fusefs.content.remote import RemoteBlob
from fusefs.errors import ImgfsError, NoSpace, limit_reached
from fusefs.log import logger
from fusefs.mount.inodes import Inodes, Place, Unready
from fusefs.mount.listing_cache import ListingCache
from fusefs.mount.overrides import fill
from fusefs.mount.privileges import may_administrate
from fusefs.mount.shared_calls import SharedCallFailed, SharedCalls, in_thread
from fusefs.mount.status import BytesRead
from fusefs.mount.throttled_log import ThrottledLog
from fusefs.tree.node import Directory, KnownTree, LazyDirectory, Node, RegularFile, Symlink, Tree
from fusefs.tree.overrides import Overrides

log = logger(__name__)

_FOREVER = 10.0 * 365 * 86400
"""Timeout of names and attributes in the kernel, in seconds: an image cannot change."""
_BLOCK = 4096
"""st_blksize and f_bsize in bytes."""
_MAX_NAME = 255
"""Bytes of a file name: f_namemax."""
_MAX_TARGET = 4095
"""Bytes of a symbolic link's target that the kernel accepts; ``transform_symlinks`` can make a target longer."""
_MAX_READ = 1 << 20
"""Bytes of the largest read request that the kernel sends."""
_TRUSTED = b"trusted."
DOTS = 2
"""Names before those of a tree: ``.`` and ``..``."""
_COLD_READS = 64
"""Threads that may wait for a disk at the same time, and as many others for a registry."""

_throttled = ThrottledLog(log)
_failures: dict[int, FUSEError] = {}
_logged: WeakSet[ImgfsError] = WeakSet()
"""Errors that are in the log already."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def answered(handler: Callable[_P, Coroutine[Any, Any, _R]]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Translate every exception of *handler* to an error number; call it again after Unready.

    Any exception but FUSEError would end the event loop, and every client of the mount would wait for ever.
    """

    @functools.wraps(handler)
    async def answer(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await _when_ready(handler, *args, **kwargs)
        except FUSEError as error:
            number = error.errno
        except SharedCallFailed as error:  # logged by the task that started the call
            number = _number(error.cause)
        except OSError as error:
            _throttled.error(handler.__name__, error)
            number = _number(error)
        except ImgfsError as error:
            _log_once(error)
            number = _number(error)
        except Exception as error:  # noqa: BLE001 - logged
            number = _number(error)
            if limit_reached(error):
                _throttled.error(handler.__name__, OSError(errno.ENOMEM, str(error) or "out of memory"))
            else:
                _throttled.bug(handler.__name__, error)
        raise _failure(number)

    return answer


async def _when_ready(handler: Callable[_P, Coroutine[Any, Any, _R]], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Return the answer of *handler*, called again after Unready."""
    while True:
        try:
            return await handler(*args, **kwargs)
        except Unready as error:
            unready = error
        operations = args[0]
        assert isinstance(operations, Operations)
        await operations.make_ready(unready)


def _failure(number: int) -> FUSEError:
    """Return the exception for an error number, always the same.

    pyfuse3 does not free the exceptions that it gets: with each, all would stay to which its traceback leads.
    """
    return _failures.setdefault(number, FUSEError(number)).with_traceback(None)


def _number(error: Exception | None) -> int:
    """Return the error number that a client gets for *error*."""
    if isinstance(error, NoSpace) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return errno.ENOSPC
    return errno.ENOMEM if error is not None and limit_reached(error) else errno.EIO


def _log_once(error: ImgfsError) -> None:
    """Log *error*, unless the log has it: a defect of an image is raised again by every access."""
    if isinstance(error, NoSpace):  # a new error each time, since each access tries again
        _throttled.message(str(error))
    elif error not in _logged:
        _logged.add(error)
        log.error("%s", error)


async def _read_only(*_: object) -> NoReturn:
    """Refuse to modify; the `ro` flag alone is not enough, since root can remount without it."""
    raise _failure(errno.EROFS)


class Operations(pyfuse3.Operations):
    """The handlers.  All of them run in one thread, the event loop's."""

    first_accesses = math.inf
    """Threads for first accesses: at most one for each lazy directory, and their work has limits of its own."""
    or_at_once = True
    """Whether a first access for which no thread can be started is done at once."""

    def __init__(self, view: Tree, overrides: Overrides, bytes_read: BytesRead) -> None:
        """Serve *view*."""
        super().__init__()
        self._view = view
        self._inodes = Inodes(view)
        self._overrides = overrides
        self._bytes_read = bytes_read
        self._open: dict[int, Content] = {}
        self._handles = count(1)
        # Shared by all reads: the reply is copied before anything else runs.
        self._buffer = memoryview(bytearray(_MAX_READ))
        self._cold_reads = trio.CapacityLimiter(_COLD_READS)
        self._remote_reads = trio.CapacityLimiter(_COLD_READS)
        self._first_accesses = trio.CapacityLimiter(self.first_accesses)
        self._calls = SharedCalls(or_at_once=self.or_at_once)
        self._listings = ListingCache(self._calls)

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
        fill(entry, inode, stat, self._overrides)
        if self._inodes.is_unsettled(inode):  # the layers' own attributes are known after the first access
            entry.attr_timeout = 0
        return entry

    def _place(self, inode: int) -> Place:
        place = self._inodes.place(inode)
        if place is None:
            raise FUSEError(errno.ESTALE)
        return place

    async def _directory(self, inode: int) -> Place:
        """Return a directory; the first access to a lazy one fills it, and all who access it meanwhile wait."""
        lazy = self._inodes.unmade(inode)
        if lazy is None:
            return self._place(inode)
        self._inodes.add(inode, await self._calls.run(("fill", inode), lazy.fill, self._first_accesses))
        self._filled(inode)
        return self._place(inode)

    def _filled(self, inode: int) -> None:
        """Note that a lazy directory has its tree."""

    async def make_ready(self, unready: Unready) -> None:
        """Make what an answer needs and is not here."""
        unready.done(await self._calls.run(("ready", unready.key), unready.work, self._first_accesses))

    def _negative(self, parent_inode: int) -> EntryAttributes:  # noqa: ARG002 - for names that may come
        """Return the answer that there is no such name, which the kernel caches as long as others."""
        return _NEGATIVE

    async def serve_idle(self) -> None:
        """Do what is due when nobody asks: nothing for one image."""

    def _gave(self, inode: int) -> None:
        """Note that the kernel has one more reference to *inode*; they do not matter where no image goes away."""

    async def _settle(self, place: Place, name: bytes | None) -> None:
        """Wait until *name* in a directory can be looked up, or with None, until its names can be listed."""
        while (work := place.tree.settling(place.number, name)) is not None:
            await self._calls.run(place.numbered, work, self._first_accesses)  # by one thread for all who look into it

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *name*, or a negative entry, which the kernel caches as long."""
        match name:
            case b"." | b"..":
                entry = self._stat_of_handle(parent_inode, name)
                self._gave(entry.st_ino)
                return entry
        place = await self._directory(parent_inode)
        await self._settle(place, name)
        number = place.tree.find(place.number, name)
        if number is None:
            return self._negative(parent_inode)
        inode = place.numbered.inode(number)
        entry = self._stat(inode)
        self._gave(inode)
        return entry

    def _stat_of_handle(self, inode: int, name: bytes) -> EntryAttributes:
        """Return the attributes of a node or of its parent: the kernel asks for a file handle that it was given.

        The handle may be made up (open_by_handle_at(2)): then the number need not be that of any node.
        """
        try:
            return self._stat(inode if name == b"." else self._inodes.parent(inode))
        except (LookupError, ValueError, TypeError, AssertionError, struct.error):
            raise FUSEError(errno.ESTALE) from None

    @answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """Return the attributes of *inode*."""
        return self._stat(inode)

    @answered
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:  # noqa: ARG002
        """Answer access(2) as the kernel does for root on a read-only file system."""
        if mode & os.W_OK:
            raise FUSEError(errno.EROFS)
        permissions = self._stat(inode).st_mode
        return not mode & os.X_OK or S_ISDIR(permissions) or bool(permissions & 0o111)

    @answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:  # noqa: ARG002
        """Return the target of a symbolic link."""
        node = self._node(inode)
        if not isinstance(node, Symlink):
            raise FUSEError(errno.EINVAL)
        if len(node.target) > _MAX_TARGET:
            raise FUSEError(errno.ENAMETOOLONG)
        return node.target

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:  # noqa: ARG002
        """Return the value of an extended attribute."""
        place = self._place(inode)
        for found, value in place.tree.xattrs(place.number):
            if found == name:
                return value
        raise FUSEError(pyfuse3.ENOATTR)

    @answered
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of the extended attributes: ``trusted.`` only for those who may read them (xattr(7)).

        The kernel refuses the values to others, but a FUSE file system has to leave out the names.
        """
        place = self._place(inode)
        names = [name for name, _ in place.tree.xattrs(place.number)]
        if any(name.startswith(_TRUSTED) for name in names) and not may_administrate(ctx.pid):
            return [name for name in names if not name.startswith(_TRUSTED)]
        return names

    @answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:  # noqa: ARG002
        """Open a file for reading; its pages stay cached from one open to the next."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        node = self._node(inode)
        if not isinstance(node, RegularFile):
            raise FUSEError(errno.EISDIR if isinstance(node, Directory | LazyDirectory) else errno.ENXIO)
        node.content.check()
        handle = next(self._handles)
        self._open[handle] = node.content
        return FileInfo(fh=handle, keep_cache=True)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return bytes of a file: at once if that cannot block, otherwise with a thread."""
        content = self._open[fh]
        data = content.read_cached(off, size, self._buffer)
        if data is None:
            # Readers that wait for a network take no place of those that wait for a disk.
            here = content.is_here if isinstance(content, RemoteBlob) else content.file_place() is not None
            limiter = self._cold_reads if here else self._remote_reads
            data = await in_thread(functools.partial(content.read_at, off, size), limiter)
        self._bytes_read.total += len(data)
        return data  # type: ignore[return-value]  # pyfuse3 takes any buffer

    @answered
    async def release(self, fh: int) -> None:
        """Close a file."""
        del self._open[fh]

    @answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:  # noqa: ARG002
        """Open a directory; its handle is the inode number."""
        self._place(inode)
        self._listings.opened(inode)
        return inode

    @answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List ``.``, ``..`` and the names of a directory, from position *start_id* on."""
        place = await self._directory(fh)
        await self._settle(place, None)
        listing = await self._listings.listing(fh, place.tree, place.number)
        if start_id < DOTS and not self._list_dots(fh, start_id, token):
            return
        if place.tree.has_lazy:  # the attributes of lazy directories change at their first access
            for position in range(max(0, start_id - DOTS), len(listing)):
                name, number = listing[position]
                inode = place.numbered.inode(number)
                if not readdir_reply(token, name, self._stat(inode), position + DOTS + 1):
                    return
                self._gave(inode)
            return
        # readdir_reply copies each entry, so one object serves all.
        entry, inode_of, stat = _new_entry(), place.numbered.inode, place.tree.stat
        for position in range(max(0, start_id - DOTS), len(listing)):
            name, number = listing[position]
            inode = inode_of(number)
            fill(entry, inode, stat(number), self._overrides)
            if not readdir_reply(token, name, entry, position + DOTS + 1):
                return
            self._gave(inode)

    def _list_dots(self, directory: int, start_id: int, token: ReaddirToken) -> bool:
        """List ``.`` and ``..``, of which the kernel uses only number and type; return False if the reply is full."""
        for position, name, inode in ((1, b".", directory), (2, b"..", self._inodes.parent(directory))):
            entry = EntryAttributes()
            entry.st_ino, entry.st_mode = inode, S_IFDIR
            if position > start_id and not readdir_reply(token, name, entry, position):
                return False
        return True

    @answered
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._listings.closed(fh)

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:  # noqa: ARG002
        """Describe a full file system: `df` shows the total size of the image's files."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks, data.f_files = self._size
        data.f_namemax = _MAX_NAME
        return data

    @functools.cached_property
    def _size(self) -> tuple[int, int]:
        """The blocks of all files of a view that does not change, and its number of nodes; else nothing."""
        if not isinstance(self._view, KnownTree):
            return 0, 0
        nodes = [self._view.node(number) for number in range(len(self._view))]
        return sum(-(-node.content.size // _BLOCK) for node in nodes if isinstance(node, RegularFile)), len(nodes)

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _read_only  # type: ignore[assignment]
    write = create = setxattr = removexattr = _read_only  # type: ignore[assignment]


def _new_entry() -> EntryAttributes:
    """Return attributes that the kernel may cache for ever."""
    entry = EntryAttributes()
    entry.entry_timeout = entry.attr_timeout = _FOREVER
    entry.st_blksize = _BLOCK
    return entry


_NEGATIVE = EntryAttributes()
_NEGATIVE.st_ino = 0
_NEGATIVE.entry_timeout = _FOREVER
