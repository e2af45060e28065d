"""The handlers of a mount of many images, called as the kernel calls them."""

import errno
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
from pyfuse3 import FUSEError

from fusefs.cli.catalogs.folder import FolderListing, FolderProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.mount.catalog import operations as handlers
from fusefs.mount.catalog.catalog import Catalog
from fusefs.mount.catalog.operations import CatalogOperations
from fusefs.mount.inodes import ROOT, Unready
from fusefs.mount.status import BytesRead
from fusefs.mount.view import ViewOptions
from fusefs.tree.overrides import Overrides
from tests.conftest import TakeWarnings
from tests.support.builders import Archive
from tests.support.conformance import SETTINGS

Test = Callable[[Catalog, CatalogOperations], Coroutine[Any, Any, None]]
CONTEXT: Any = None
MADE_UP = 1 << 40


def run(folder: Path, test: Test) -> None:
    """Run *test* with a catalog of one archive, ``a.tar``."""
    Archive().write(folder / "a.tar")
    provider = FolderProvider(str(folder), SETTINGS, None, Saves(1))
    catalog = Catalog(provider, provider.listing(), ViewOptions(0, 0), idle=600)
    trio.run(test, catalog, CatalogOperations(catalog, Overrides(None, None, None), BytesRead()))


async def looked_up(operations: CatalogOperations, parent: int, name: bytes) -> int:
    """Return the inode number of a name; the kernel refers to it once more."""
    return int((await operations.lookup(parent, name, CONTEXT)).st_ino)


async def error_of(answer: Coroutine[Any, Any, Any]) -> int:
    """Return the error number of an answer."""
    with pytest.raises(FUSEError) as caught:
        await answer
    return int(caught.value.errno)


def test_a_directory_that_is_known_again_is_not_forgotten_by_what_was_below_it(tmp_path: Path) -> None:
    async def test(catalog: Catalog, operations: CatalogOperations) -> None:
        image = await looked_up(operations, ROOT, b"a.tar")
        below = await looked_up(operations, image, b"rootfs")
        await operations.forget([(image, 1)])  # an inotify watch keeps what is below it
        assert await looked_up(operations, ROOT, b"a.tar") == image
        await operations.forget([(below, 1)])
        await operations.forget([(await looked_up(operations, image, b"rootfs"), 1)])
        (tmp_path / "a.tar").unlink()
        catalog.update(catalog.new_listing())
        assert (await operations.getattr(image, CONTEXT)).st_ino == image

    run(tmp_path, test)


def test_a_reference_by_handle_counts(tmp_path: Path) -> None:
    async def test(_: Catalog, operations: CatalogOperations) -> None:
        image = await looked_up(operations, ROOT, b"a.tar")
        below = await looked_up(operations, image, b"rootfs")
        await operations.forget([(below, 1)])
        assert await looked_up(operations, below, b".") == below
        await operations.forget([(image, 1)])
        assert (await operations.getattr(below, CONTEXT)).st_ino == below

    run(tmp_path, test)


def test_a_handle_that_is_made_up_is_stale(tmp_path: Path) -> None:
    async def test(_: Catalog, operations: CatalogOperations) -> None:
        assert await error_of(operations.lookup(MADE_UP, b".", CONTEXT)) == errno.ESTALE
        assert await error_of(operations.opendir(MADE_UP, CONTEXT)) == errno.ESTALE

    run(tmp_path, test)


def test_an_image_on_which_somebody_waits_is_in_use(tmp_path: Path) -> None:
    async def test(catalog: Catalog, operations: CatalogOperations) -> None:
        image = await looked_up(operations, ROOT, b"a.tar")
        documents = await looked_up(operations, image, b"manifest.json")
        owner = operations._inodes.owner(documents)
        late = time.monotonic() + 2 * catalog.idle
        assert [*catalog.unused(late)] == [owner]
        meanwhile: list[object] = []
        await operations.make_ready(Unready("work", lambda: meanwhile.extend(catalog.unused(late)), owner=owner))
        assert meanwhile == []
        assert [*catalog.unused(late)] == [owner]

    run(tmp_path, test)


class SlowProvider(FolderProvider):
    """A folder that is listed when the test says so, the first time excepted."""

    may_tell: threading.Semaphore | None = None

    def listing(self) -> FolderListing:
        """Return what is in the folder."""
        if self.may_tell is not None:
            self.may_tell.acquire()
        return super().listing()


def test_a_listing_for_which_nobody_waited_long_enough_is_used_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings
) -> None:
    monkeypatch.setattr(handlers, "_PATIENCE", 0.05)
    provider = SlowProvider(str(tmp_path), SETTINGS, None, Saves(1))
    catalog = Catalog(provider, provider.listing(), ViewOptions(0, 0), idle=600)
    provider.may_tell = may_tell = threading.Semaphore(0)
    Archive().write(tmp_path / "a.tar")

    async def test() -> None:
        operations = CatalogOperations(catalog, Overrides(None, None, None), BytesRead())
        found = []
        for _ in range(2):
            catalog.keep(0)
            found.append((await operations.lookup(ROOT, b"a.tar", CONTEXT)).st_ino > 0)
            may_tell.release()
            with trio.fail_after(60):
                # It begins when the thread that lists has ended.
                await trio.to_thread.run_sync(lambda: None, limiter=operations._listing)
        assert found == [False, True]

    trio.run(test)
    assert take_warnings() == 2 * ["no list of the images within 0.05 s; the last one is used for 30 s"]


def test_that_images_cannot_be_listed_is_said_once_until_they_can(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    provider = FolderProvider(str(folder), SETTINGS, None, Saves(1))
    catalog = Catalog(provider, provider.listing(), ViewOptions(0, 0), idle=600)
    for _ in range(2):
        folder.rmdir()
        assert [catalog.new_listing(), catalog.new_listing()] == [None, None]
        folder.mkdir()
        assert catalog.new_listing() is not None
    line = f"cannot list the images: cannot list {folder}: No such file or directory"
    assert take_warnings() == [line, line]
