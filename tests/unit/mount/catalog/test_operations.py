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
from fusefs.mount.catalog.at_once import ListedAtOnce
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


def catalog_of(provider: FolderProvider) -> Catalog:
    """Return a catalog of what *provider* lists now."""
    return Catalog(ListedAtOnce(provider, provider.listing()), ViewOptions(0, 0), idle=600)


def ask(catalog: Catalog) -> str:
    """Let the provider list its images again; return why it cannot."""
    provider = catalog.provider
    assert isinstance(provider, ListedAtOnce)
    provider._keep(0)
    question = provider.question((), None)
    assert question is not None
    question.ask()
    return provider.names.error(())


def run(folder: Path, test: Test) -> None:
    """Run *test* with a catalog of one archive, ``a.tar``."""
    Archive().write(folder / "a.tar")
    catalog = catalog_of(FolderProvider(str(folder), SETTINGS, None, Saves(1)))
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
        ask(catalog)
        assert [*catalog.tree.gone(None)] == [(0, b"a.tar")]
        assert (await operations.getattr(image, CONTEXT)).st_ino == image

    run(tmp_path, test)


def test_others_have_their_turn_while_many_names_are_forgotten(tmp_path: Path) -> None:
    async def test(_: Catalog, operations: CatalogOperations) -> None:
        image = await looked_up(operations, ROOT, b"a.tar")
        turns = list[int]()

        async def other() -> None:
            while True:
                turns.append(1)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await operations.forget([(image, 0)] * 600)
            had_turns = bool(turns)
            nursery.cancel_scope.cancel()
        assert had_turns

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
    catalog = catalog_of(provider)
    assert isinstance(catalog.provider, ListedAtOnce)
    keep = catalog.provider._keep
    provider.may_tell = may_tell = threading.Semaphore(0)
    Archive().write(tmp_path / "a.tar")

    async def test() -> None:
        operations = CatalogOperations(catalog, Overrides(None, None, None), BytesRead())
        found = []
        for _ in range(2):
            keep(0)
            found.append((await operations.lookup(ROOT, b"a.tar", CONTEXT)).st_ino > 0)
            may_tell.release()
            with trio.fail_after(60):
                # It begins when the thread that lists has ended.
                await trio.to_thread.run_sync(lambda: None, limiter=operations._questions)
        assert found == [False, True]

    trio.run(test)
    assert take_warnings() == 2 * ["no list of the images within 0.05 s; the last one is used for 30 s"]


def test_that_images_cannot_be_listed_is_said_once_until_they_can(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    catalog = catalog_of(FolderProvider(str(folder), SETTINGS, None, Saves(1)))
    why = f"cannot list {folder}: No such file or directory"
    for _ in range(2):
        folder.rmdir()
        assert [ask(catalog), ask(catalog)] == [why, why]
        folder.mkdir()
        assert ask(catalog) == ""
    assert take_warnings() == 2 * [f"cannot list the images: {why}"]


def test_paths_in_use_end_with_a_zero_byte_and_none_is_cut(tmp_path: Path) -> None:
    names = [f"{number:03}\n{'x' * 200}.tar" for number in range(100)]
    for name in names:
        Archive().write(tmp_path / name)
    catalog = catalog_of(FolderProvider(str(tmp_path), SETTINGS, None, Saves(1)))

    async def test() -> None:
        operations = CatalogOperations(catalog, Overrides(None, None, None), BytesRead())
        for name in names:
            image = await looked_up(operations, ROOT, name.encode())
            await looked_up(operations, image, b"config")
        value = await operations.getxattr(ROOT, b"user.imgfs.in_use", CONTEXT)
        found = value.decode().split("\0")
        assert found.pop() == ""
        assert found == names[: len(found)]
        assert len(value) < 16_384
        assert len(found) > 70

    trio.run(test)


def test_what_is_let_go_wrongly_does_not_end_the_mount(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, take_warnings: TakeWarnings
) -> None:
    async def test(catalog: Catalog, operations: CatalogOperations) -> None:
        catalog.idle = 0.0
        image = await looked_up(operations, ROOT, b"a.tar")
        await looked_up(operations, image, b"config")
        (directory,) = catalog.unused(time.monotonic() + 1)
        directory.trees.append(object())  # type: ignore[arg-type]  # a bug
        with trio.move_on_after(60) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operations.serve_idle)
                while "letting go: a bug" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                    await trio.sleep(0.01)
                directory.trees.pop()
                while directory.is_held:  # noqa: ASYNC110 - it is the mount that lets go
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert not limit.cancelled_caught

    run(tmp_path, test)
    assert set(take_warnings()) == {"letting go: a bug"}


def test_a_first_access_without_a_thread_fails_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_warnings: TakeWarnings
) -> None:
    async def test(_: Catalog, operations: CatalogOperations) -> None:
        image = await looked_up(operations, ROOT, b"a.tar")
        blobs = await looked_up(operations, image, b"blobs")

        def no_thread(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr("trio._threads.start_thread_soon", no_thread)
            assert await error_of(operations.lookup(blobs, b"sha256", CONTEXT)) == errno.ENOMEM
        assert await looked_up(operations, blobs, b"sha256") > 0

    run(tmp_path, test)
    (line,) = take_warnings()
    assert "cannot start a thread" in line
