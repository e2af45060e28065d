"""Bytes of a blob that another mount has fetched."""

import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from fusefs.cache.part import part_names, part_size, read_notes
from fusefs.cache.store import Cache
from fusefs.content.pieces import Take
from fusefs.content.remote import RemoteBlob
from fusefs.oci.digest import Digest
from fusefs.oci.documents import OCI_LAYER, Descriptor
from fusefs.sources.registry.entry import BlobEntry
from fusefs.sources.registry.supply import BlobSupply
from fusefs.sources.registry.transfer import Transfers
from fusefs.tree.once import Once
from tests.conftest import TakeWarnings
from tests.support.namespaces import SOURCES
from tests.support.processes import until

DATA = random.Random(1).randbytes(1_000_000)
STEP = 1 << 16
"""Bytes that arrive at once."""
BLOB = Descriptor(OCI_LAYER, len(DATA), Digest.of([DATA]))


class Sending:
    """A registry in memory."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.before: Callable[[], object] = lambda: None
        self.ignores_ranges = False
        self.sent = 0

    def blob(self, _: Descriptor, wanted: tuple[int, int], take: Take, *, again: int) -> None:  # noqa: ARG002
        """Send the bytes."""
        self.asked.append(wanted)
        self.before()
        start, end = (0, len(DATA)) if self.ignores_ranges else wanted
        for offset in range(start, end, STEP):
            piece = DATA[offset : min(offset + STEP, end)]
            self.sent += len(piece)
            take(offset, piece)

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """Hold answers; return what is set when the next one is asked for, and what lets them go."""
        asked, go = threading.Event(), threading.Event()

        def wait() -> None:
            asked.set()
            go.wait(10)

        self.before = wait
        return asked, go


class Mount:
    """A layer of a mount."""

    def __init__(self, folder: Path) -> None:
        self.registry = Sending()
        self.entry = BlobEntry(Cache(str(folder / "cache")), BLOB, "docker://registry/app")
        transfers = Once(lambda: cast("Transfers", self.registry))
        self.blob = RemoteBlob(len(DATA), BlobSupply(BLOB, "app", transfers, self.entry, str(folder)))

    def reads(self, start: int, end: int) -> bool:
        """Return whether the bytes are right."""
        return bytes(self.blob.unverified_range(start, end - start)) == DATA[start:end]

    def asked(self) -> list[tuple[int, int]]:
        """Return the ranges that were asked for since the last call."""
        asked, self.registry.asked = self.registry.asked, []
        return asked

    def close(self) -> None:
        """Close the files."""
        self.blob.close()
        self.entry.close()


@pytest.fixture(name="new")
def new_fixture(tmp_path: Path) -> Iterator[Callable[[], Mount]]:
    """Give a function that makes a mount with the same cache as all others."""
    made: list[Mount] = []

    def new() -> Mount:
        made.append(Mount(tmp_path))
        return made[-1]

    yield new
    for each in made:
        each.close()


def test_only_what_nobody_has_is_asked_for(new: Callable[[], Mount]) -> None:
    first, second, third = new(), new(), new()
    assert first.reads(0, 1000)
    assert second.reads(500, 2000)
    assert third.reads(0, 3000)
    assert [mount.asked() for mount in (first, second, third)] == [[(0, 1000)], [(1000, 2000)], [(2000, 3000)]]
    assert first.blob.read_at(0, len(DATA)) == DATA
    assert first.asked() == [(3000, len(DATA))]
    assert third.reads(100_000, 200_000)
    assert third.asked() == []  # the whole blob is cached now


def test_the_files_of_ended_mounts_are_used(new: Callable[[], Mount], tmp_path: Path) -> None:
    first, second = new(), new()
    assert first.reads(0, 1000)
    assert second.reads(2000, 9000)
    first.close()
    second.close()
    directory = os.open(next((tmp_path / "cache" / "blobs").iterdir()), os.O_RDONLY)
    assert part_size(directory, len(DATA)) == (8000, len(DATA))
    os.close(directory)
    third = new()
    assert third.reads(0, 9000)
    assert third.asked() == [(1000, 2000)]
    (parts,) = (tmp_path / "cache" / "blobs").iterdir()
    assert sorted(os.listdir(parts)) == ["index", "part", "part-2", "part-2.seal", "part.seal"]
    assert third.blob.read_at(0, len(DATA)) == DATA
    assert sorted(os.listdir(parts)) == ["blob", "blob.seal", "index"]


def test_a_wrong_copy_is_replaced(new: Callable[[], Mount], tmp_path: Path) -> None:
    first, second, third = new(), new(), new()
    assert first.reads(0, 10_000)
    (part,) = tmp_path.glob("cache/blobs/*/part")
    part.write_bytes(bytes(10_000))
    assert not second.reads(0, 1000)
    second.blob.drop_range(0, 1000)
    assert second.reads(0, 1000)
    assert second.asked() == [(0, 1000)]
    assert third.blob.read_at(0, len(DATA)) == DATA
    assert third.asked() == [(10_000, len(DATA)), (0, len(DATA))]


@pytest.mark.parametrize("what", [os.unlink, lambda path: os.truncate(path, 0), "a link", "a folder", "a FIFO"])
def test_a_copy_that_is_gone_or_something_else_is_not_used(
    new: Callable[[], Mount], tmp_path: Path, take_warnings: TakeWarnings, what: "Callable[[Path], None] | str"
) -> None:
    first, second = new(), new()
    assert first.reads(0, 10_000)
    assert second.reads(90_000, 90_001)  # it has its own file now
    (part,) = tmp_path.glob("cache/blobs/*/part")
    if callable(what):
        what(part)
    else:
        part.unlink()
        make = {"a link": lambda path: path.symlink_to("/etc/passwd"), "a folder": Path.mkdir, "a FIFO": os.mkfifo}
        make[what](part)
    assert second.reads(0, 10_000)
    assert second.asked() == [(90_000, 90_001), (0, 10_000)]
    assert len(take_warnings()) == (what == "a link")


def test_who_reads_pieces_is_not_waited_for_and_who_fetches_all_is(new: Callable[[], Mount]) -> None:
    first, second, third = new(), new(), new()
    assert second.entry.others_part() is None
    assert first.reads(0, 1000)
    assert second.entry.others_part() is None
    begun, go = first.registry.hold()
    with ThreadPoolExecutor() as threads:
        whole = threads.submit(first.blob.read_at, 0, 10)
        assert begun.wait(10)
        assert second.entry.others_part() is not None
        waiting = threads.submit(third.blob.read_at, 0, 10)
        go.set()
        assert whole.result() == waiting.result() == DATA[:10]
    assert third.asked() == []


def test_more_mounts_than_files_have_files_of_their_own(new: Callable[[], Mount], tmp_path: Path) -> None:
    mounts = [new() for _ in range(10)]
    for number, mount in enumerate(mounts):
        assert mount.reads(1000 * number, 1000 * number + 1000)
    assert len([*tmp_path.glob("cache/blobs/*/part*.seal")]) == 8
    last = mounts[-1]
    assert last.reads(0, 20_000)
    assert last.asked() == [(9000, 10_000), (8000, 20_000)]


def test_mounts_that_read_at_the_same_time_get_the_right_bytes(new: Callable[[], Mount]) -> None:
    mounts = [new() for _ in range(4)]
    choices = random.Random(2)

    def read(mount: Mount, seed: int) -> bool:
        choose = random.Random(seed)
        ranges = [(start, start + choose.randrange(1, 30_000)) for start in choose.sample(range(900_000), 60)]
        return all(mount.reads(*each) for each in ranges)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, mounts * 2, choices.sample(range(1000), 8)))
    asked = sum(end - start for mount in mounts for start, end in mount.asked())
    assert asked < 2 * len(DATA)
    assert all(mount.blob.read_at(0, len(DATA)) == DATA for mount in mounts)


def test_a_server_that_ignores_ranges_sends_everything_once_beside_copies(new: Callable[[], Mount]) -> None:
    first, second = new(), new()
    assert first.reads(100_000, 100_100)
    second.registry.ignores_ranges = True
    asked, go = second.registry.hold()
    with ThreadPoolExecutor() as threads:
        late = threads.submit(second.reads, 100_000, 100_200)  # half of it is copied
        assert asked.wait(10)
        second.registry.before = lambda: None
        assert second.reads(900_000, 900_010)
        go.set()
        assert late.result()
    assert second.registry.sent <= len(DATA) + STEP


def test_notes_that_cannot_be_written_are_told_once(new: Callable[[], Mount], take_warnings: TakeWarnings) -> None:
    mount = new()
    assert mount.reads(0, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert all(mount.reads(start, start + 10) for start in range(100, 20_000, 15))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [warning.startswith("cannot note what is there of ") for warning in take_warnings()] == [True]
    assert new().reads(0, 19_000)


_READS = """\
import random, sys
from pathlib import Path
from tests.unit.sources.registry.test_copies import DATA, Mount
mount = Mount(Path(sys.argv[1]))
print(flush=True)
while True:
    start = random.randrange(len(DATA) - 5000)
    mount.blob.unverified_range(start, random.randrange(1, 5000))
    if random.random() < 0.2:
        mount.blob.drop_range(start, random.randrange(1, 5000))
"""


def test_a_kill_leaves_notes_that_name_right_bytes_only(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _READS, str(tmp_path)]
    named = 0
    for _ in range(2):
        children = [subprocess.Popen(words, cwd=SOURCES, stdout=subprocess.PIPE) for _ in range(3)]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        until(lambda: any(path.stat().st_size > 100 for path in tmp_path.rglob("part*.seal")), "something is noted")
        for child in children:
            time.sleep(random.Random(named).random() / 20)
            child.kill()
            child.communicate()
        (folder,) = (tmp_path / "cache" / "blobs").iterdir()
        directory = os.open(folder, os.O_RDONLY)
        for name in part_names(directory):
            data, notes = (folder / name).read_bytes(), read_notes(directory, name, None)
            assert notes is not None
            assert all(data[start:end] == DATA[start:end] for start, end in notes.ranges)
            named += notes.ranges.total
        os.close(directory)
    assert named > 0
