"""A file system with one file whose reads wait when told to: ``python slow_file.py FILE MOUNTPOINT``.

It shows a copy of FILE as MOUNTPOINT/file.  It writes ``ready``, and ``waiting`` for each read
that it holds back; ``hold`` on its stdin makes reads wait, ``break`` makes them fail until ``mend``, ``go``
lets them pass, the end unmounts.
"""

import errno
import os
import stat
import sys

import pyfuse3
import trio

_FILE = 2


class OneFile(pyfuse3.Operations):
    """The file system; the page cache is dropped at each open."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self._go = trio.Event()
        self._go.set()
        self._broken = False

    def init(self) -> None:
        print("ready", flush=True)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_nlink = 1
        entry.st_mode = stat.S_IFREG | 0o444 if inode == _FILE else stat.S_IFDIR | 0o555
        entry.st_size = len(self._data) if inode == _FILE else 0
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        if name != b"file":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_FILE, ctx)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:  # noqa: ARG002
        return pyfuse3.FileInfo(fh=inode)

    async def read(self, fh: int, off: int, size: int) -> bytes:  # noqa: ARG002
        if not self._go.is_set():
            print("waiting", flush=True)
            await self._go.wait()
        if self._broken:
            raise pyfuse3.FUSEError(errno.EIO)
        return self._data[off : off + size]

    async def obey(self) -> None:
        """Do what stdin says."""
        async for line in trio.lowlevel.FdStream(os.dup(0)):
            for word in line.split():
                if word == b"hold":
                    self._go = trio.Event()
                    print("holding", flush=True)
                elif word == b"break":
                    self._broken = True
                    print("broken", flush=True)
                elif word == b"mend":
                    self._broken = False
                    print("mended", flush=True)
                elif word == b"go":
                    self._go.set()


async def _serve(operations: OneFile) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        await operations.obey()
        nursery.cancel_scope.cancel()


def main(source: str, mountpoint: str) -> None:
    """Serve until stdin ends."""
    with open(source, "rb") as file:
        operations = OneFile(file.read())
    pyfuse3.init(operations, mountpoint, ["ro", "subtype=slow", "fsname=slow"])  # type: ignore[arg-type]
    try:
        trio.run(_serve, operations)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
