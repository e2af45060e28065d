"""A folder on a disk that fails when told to: ``python failing_folder.py MOUNTPOINT [FILE]``.

Files are held in memory; a copy of FILE, if there is one, is there as ``file`` with its inode and times.  It writes
``ready``, and ``done`` for each line on its stdin: ``read START END`` makes each read of these bytes an error,
``write START`` each write from there on, ``well`` neither.  The end of its stdin unmounts.
"""

import errno
import os
import stat
import sys
from itertools import count

import pyfuse3
import trio

_DISK_ERROR = pyfuse3.FUSEError(errno.EIO)


class FailingFolder(pyfuse3.Operations):
    """The file system; nothing of it is in the page cache."""

    def __init__(self, source: str | None) -> None:
        super().__init__()
        self._names: dict[bytes, int] = {}
        self._data: dict[int, bytearray] = {}
        self._stats: dict[int, os.stat_result] = {}
        self._numbers = count(2)
        self._unreadable = range(0)
        self._writable = sys.maxsize
        if source:
            with open(source, "rb") as file:
                found = os.fstat(file.fileno())
                self._names[b"file"] = found.st_ino
                self._stats[found.st_ino] = found
                self._data[found.st_ino] = bytearray(file.read())

    def init(self) -> None:
        print("ready", flush=True)

    async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_nlink = 1
        entry.st_mode = stat.S_IFREG | 0o600 if inode in self._data else stat.S_IFDIR | 0o700
        entry.st_size = len(self._data.get(inode, b""))
        if inode in self._stats:
            entry.st_mtime_ns, entry.st_ctime_ns = self._stats[inode].st_mtime_ns, self._stats[inode].st_ctime_ns
        return entry

    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:  # noqa: ARG002
        found = pyfuse3.StatvfsData()
        found.f_bsize = found.f_frsize = 4096
        found.f_blocks = found.f_bfree = found.f_bavail = 1 << 20
        return found

    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        if name not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(self._names[name])

    async def opendir(self, inode: int, ctx: object) -> int:  # noqa: ARG002
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:  # noqa: ARG002
        for number, (name, inode) in list(enumerate(self._names.items(), 1))[start_id:]:
            if not pyfuse3.readdir_reply(token, name, await self.getattr(inode), number):
                return

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:  # noqa: ARG002
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def create(
        self,
        parent_inode: int,  # noqa: ARG002
        name: bytes,
        mode: int,  # noqa: ARG002
        flags: int,
        ctx: object,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        inode = self._names[name] = next(self._numbers)
        self._data[inode] = bytearray()
        return await self.open(inode, flags, ctx), await self.getattr(inode)

    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:  # noqa: ARG002
        del self._names[name]

    async def read(self, fh: int, off: int, size: int) -> bytes:
        if max(off, self._unreadable.start) < min(off + size, self._unreadable.stop):
            raise _DISK_ERROR
        return bytes(self._data[fh][off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if off + len(buf) > self._writable:
            raise _DISK_ERROR
        self._data[fh][off : off + len(buf)] = buf
        return len(buf)

    async def obey(self) -> None:
        """Do what stdin says."""
        async for lines in trio.lowlevel.FdStream(os.dup(0)):
            for line in lines.splitlines():
                match line.decode().split():
                    case ["read", start, end]:
                        self._unreadable = range(int(start), int(end))
                    case ["write", start]:
                        self._writable = int(start)
                    case _:
                        self._unreadable, self._writable = range(0), sys.maxsize
                print("done", flush=True)


async def _serve(operations: FailingFolder) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        await operations.obey()
        nursery.cancel_scope.cancel()


def main(mountpoint: str, source: str | None = None) -> None:
    """Serve until stdin ends."""
    operations = FailingFolder(source)
    pyfuse3.init(operations, mountpoint, ["subtype=failing", "fsname=failing"])  # type: ignore[arg-type]
    try:
        trio.run(_serve, operations)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
