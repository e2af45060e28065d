"""FUSE request handlers of a mount of many images.

Above the images, names come and go: the provider is asked at most once in two seconds, and the kernel remembers names
only until it may be asked again.  Nothing there waits for an image.  Below an image directory, names and attributes
never change.  What nobody has used for some time is let go; inode numbers stay until the kernel has forgotten them.
"""

import gc
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from operator import itemgetter

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, ReaddirToken, RequestContext, readdir_reply

from fusefs.errors import LimitReached, limit_reached
from fusefs.log import logger
from fusefs.mount.catalog.catalog import Catalog
from fusefs.mount.catalog.directory import IMAGE_NAMES, ImageDirectory
from fusefs.mount.catalog.provider import FRESH
from fusefs.mount.catalog.tree import CatalogNode
from fusefs.mount.inodes import ROOT, Owner, Place, Unready
from fusefs.mount.operations import DOTS, Operations, answered
from fusefs.mount.shared_calls import SharedCallFailed
from fusefs.mount.status import BytesRead
from fusefs.text import printable
from fusefs.tree.node import Node
from fusefs.tree.overrides import Overrides

log = logger(__name__)

_PATIENCE = 5.0
"""Seconds to wait for a new listing before the last one is used again."""
_SILENCE = 30.0
"""Seconds for which it is used then, so that names do not wait again at once."""
_FOLDER_HANDLES = 1 << 60
"""Handles of open directories above the images begin here; those of others are inode numbers."""


_QUIET = 2.0
"""Seconds after the last request for an image directory that is gone."""
_TURN = 256
"""Names that the kernel, or imgfs, is told to forget before others have their turn."""
_FIRST_ACCESSES = 256
"""Threads that wait for images; further first accesses wait for them."""


class _OpenFolder:
    """An open directory above the images: its names stay the same until it is read from the beginning again.

    The position of a name is made of its number, which stays the same while it is listed: a position that was told
    means the same when the directory is opened again, as by an NFS server.
    """

    __slots__ = ("inode", "names")

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.names: Sequence[tuple[int, bytes, CatalogNode]] | None = None
        """By number; None until it is read."""


class CatalogOperations(Operations):
    """The handlers.  All of them run in one thread, the event loop's."""

    first_accesses = _FIRST_ACCESSES
    or_at_once = False
    """A save may take minutes, in which nobody else would be answered."""

    def __init__(self, catalog: Catalog, overrides: Overrides, bytes_read: BytesRead) -> None:
        """Serve *catalog*."""
        super().__init__(catalog.tree, overrides, bytes_read)
        self._catalog = catalog
        self._provider = catalog.provider
        self._questions = trio.CapacityLimiter(catalog.provider.questions_at_once)
        self._folders: dict[int, _OpenFolder] = {}
        self._folder_handles = count(_FOLDER_HANDLES)
        self._owners: dict[int, Owner] = {}
        """The image directories of open files, by their handles."""

    async def serve_idle(self) -> None:
        """Let go of images that nobody uses, until cancelled."""
        pause = min(max(self._catalog.idle / 4, 0.25), 60.0)
        while True:
            await trio.sleep(pause)
            try:
                await self._let_go()
            except Exception:  # an exception would end the mount
                log.exception("letting go: a bug")

    async def _let_go(self) -> None:
        unused = [*self._catalog.unused(time.monotonic())]
        for directory in unused:
            directory.release()
            log.info("let go of %s", printable(directory.listed.name))
        if unused:
            await self._collect()
        await self._let_kernel_forget()

    async def _let_kernel_forget(self) -> None:
        """Let the kernel forget what is below names that are gone and was in use when they went.

        It has dropped the names then, but keeps what is below until memory is short.  What is still in use must wait:
        the kernel would drop the names between it and the image directory, and nobody could tell it any more.
        """
        for turn, (parent, name) in enumerate(self._catalog.tree.lingering(IMAGE_NAMES), 1):
            owner = self._inodes.tree_owner(self._inodes.root_inode(parent))
            if owner is not None and (owner.opened or owner.busy or time.monotonic() < owner.used + _QUIET):
                continue
            pyfuse3.invalidate_entry_async(self._inodes.root_inode(parent), name, ignore_enoent=True)
            if not turn % _TURN:
                await trio.lowlevel.checkpoint()

    async def _collect(self) -> None:
        """Free what is let go now: layers and what makes them refer to each other."""
        try:
            await trio.to_thread.run_sync(gc.collect)
        except RuntimeError as error:
            if limit_reached(error) is None:
                raise

    async def _fresh(self, inode: int, name: bytes | None) -> None:
        """Wait until what *name*, or None for all names, is in a directory above the images is known.

        After some seconds, what was known before is used again.
        """
        number = self._inodes.root_number(inode)
        assert number is not None
        question = self._provider.question(self._catalog.tree.path(number), name)
        if question is None:
            return
        with trio.move_on_after(_PATIENCE) as waiting:
            try:
                await self._calls.run(("names", question.key), question.ask, self._questions)
            except SharedCallFailed:
                return
            except LimitReached as error:
                log.warning("cannot list the images: %s", error)
                question.keep(FRESH)
        if waiting.cancelled_caught:
            log.warning("no list of the images within %g s; the last one is used for %g s", _PATIENCE, _SILENCE)
            question.keep(_SILENCE)
        for found in self._catalog.tree.gone(self._provider.changes()):
            if found is None:
                await trio.lowlevel.checkpoint()
            else:
                parent, gone = found
                pyfuse3.invalidate_entry_async(self._inodes.root_inode(parent), gone, ignore_enoent=True)

    def _is_folder(self, inode: int) -> bool:
        """Return whether *inode* is a directory above the images."""
        number = self._inodes.root_number(inode)
        return number is not None and self._catalog.tree.is_folder(number)

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Return the attributes of *name*, or a negative entry."""
        if self._is_folder(parent_inode) and name not in (b".", b".."):
            await self._fresh(parent_inode, name)
        return await super().lookup(parent_inode, name, ctx)

    @answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory."""
        if not self._is_folder(inode):
            handle = await super().opendir(inode, ctx)
            owner = self._inodes.owner(inode)
            if owner is not None:
                owner.opened += 1
            return handle
        handle = next(self._folder_handles)
        self._folders[handle] = _OpenFolder(inode)
        return handle

    @answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List a directory, from position *start_id* on."""
        folder = self._folders.get(fh)
        if folder is None:
            return await super().readdir(fh, start_id, token)
        inode, tree = folder.inode, self._catalog.tree
        if start_id == 0 or folder.names is None:
            await self._fresh(inode, None)
            number = self._inodes.root_number(inode)
            assert number is not None
            folder.names = sorted((tree.number(node), name, node) for name, node in tree.named(number))
        if start_id < DOTS and not self._list_dots(inode, start_id, token):
            return None
        for at in range(bisect_right(folder.names, start_id - DOTS, key=itemgetter(0)), len(folder.names)):
            position, name, node = folder.names[at]
            below = self._inodes.root_inode(tree.number(node))
            if not readdir_reply(token, name, self._stat(below), position + DOTS):
                return None
            self._gave(below)
        return None

    @answered
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        if self._folders.pop(fh, None) is None:
            owner = self._inodes.owner(fh)
            if owner is not None:
                owner.opened -= 1
                owner.used = time.monotonic()
            await super().releasedir(fh)

    def _stat(self, inode: int) -> EntryAttributes:
        entry = super()._stat(inode)
        owner = self._inodes.owner(inode)
        if owner is None:
            number = self._inodes.root_number(inode)
            entry.generation = 0 if number is None else self._catalog.tree.generation(number)
            entry.entry_timeout = entry.attr_timeout = self._provider.fresh_for
        elif isinstance(owner, ImageDirectory):
            owner.used = time.monotonic()
            if not owner.is_known:
                entry.entry_timeout = entry.attr_timeout = 0
        return entry

    def _negative(self, parent_inode: int) -> EntryAttributes:
        if not self._is_folder(parent_inode):
            return super()._negative(parent_inode)
        entry = EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = self._provider.fresh_for
        return entry

    def _node(self, inode: int) -> Node:
        self._use(inode)
        return super()._node(inode)

    def _place(self, inode: int) -> Place:
        self._use(inode)
        return super()._place(inode)

    def _use(self, inode: int) -> None:
        owner = self._inodes.owner(inode)
        if owner is not None:
            owner.used = time.monotonic()

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file; its image directory is in use."""
        info = await super().open(inode, flags, ctx)
        owner = self._inodes.owner(inode)
        if owner is not None:
            owner.opened += 1
            self._owners[info.fh] = owner
        return info

    async def release(self, fh: int) -> None:
        """Close a file."""
        owner = self._owners.pop(fh, None)
        if owner is not None:
            owner.opened -= 1
            owner.used = time.monotonic()
        await super().release(fh)

    async def _directory(self, inode: int) -> Place:
        with _busy(self._inodes.owner(inode)):
            return await super()._directory(inode)

    async def make_ready(self, unready: Unready) -> None:
        """Make what an answer needs and is not here."""
        with _busy(unready.owner):
            await super().make_ready(unready)

    def _filled(self, inode: int) -> None:
        directory = self._place(inode).numbered.owner
        if isinstance(directory, ImageDirectory):
            self._catalog.entered(directory)

    def _gave(self, inode: int) -> None:
        owner = self._inodes.owner(inode)
        if owner is None:
            number = self._inodes.root_number(inode)
            assert number is not None
            self._catalog.tree.looked_up(number)
        else:
            owner.lookups += 1

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Count references of the kernel that are gone; what has none is let go, numbers included."""
        for turn, (inode, number) in enumerate(inode_list, 1):
            try:
                self._forget(inode, number)
            except Exception:  # an exception would end the event loop, and every client would wait for ever
                log.exception("forget: a bug")
            if not turn % _TURN:
                await trio.lowlevel.checkpoint()

    def _forget(self, inode: int, number: int) -> None:
        owner = self._inodes.owner(inode)
        if owner is not None:
            owner.lookups -= number
            if owner.forgotten and not owner.lookups:
                forgotten, owner.forgotten = owner.forgotten, 0  # the directory itself may be known again by now
                self._forget_name(owner.trees[0].number, forgotten, owner)
        elif inode != ROOT:
            place = self._inodes.place(inode)
            owner = None if place is None else place.numbered.owner
            if owner is not None and owner.lookups:  # what is below it keeps its number
                owner.forgotten += number
            else:
                self._forget_name(inode, number, owner)

    def _forget_name(self, inode: int, number: int, owner: Owner | None) -> None:
        """Forget references to a node of the catalog; *owner*: the trees below it, if somebody has looked into it."""
        at = self._inodes.root_number(inode)
        assert at is not None
        if self._catalog.tree.forget(at, number) and isinstance(owner, ImageDirectory):
            self._inodes.forget(owner)
            self._catalog.left(owner)


@contextmanager
def _busy(owner: Owner | None) -> Iterator[None]:
    """Note that a request waits for work on *owner*."""
    if owner is None:
        yield
        return
    owner.busy += 1
    try:
        yield
    finally:
        owner.busy -= 1
        owner.used = time.monotonic()
