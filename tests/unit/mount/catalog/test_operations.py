"""The handlers of a mount of many images, called as the kernel calls them."""

import errno
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
from pyfuse3 import FUSEError

from fusefs.cli.catalogs.folder import FolderProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.mount.catalog.catalog import Catalog
from fusefs.mount.catalog.operations import CatalogOperations
from fusefs.mount.inodes import ROOT, Unready
from fusefs.mount.status import BytesRead
from fusefs.mount.view import ViewOptions
from fusefs.tree.overrides import Overrides
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
