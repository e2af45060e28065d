"""Looking into layers: listing, reading every file, indexing, and what that takes in memory.

The peers merge no layers: they get the base layer's tar, and imgfs the image of two layers, of which the
upper one adds a directory that neither reads.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.bench import FRESH, Bench, Contestant, Sample, case
from benchmarks.inputs import ONLY_ABOVE, Image
from benchmarks.reading import read_files
from benchmarks.results import Curve, Row, Target
from benchmarks.tools import FUSE, FUSE_ARCHIVE, RATARMOUNT
from benchmarks.workplace import Failed, Mount

_LOOKED = "the mount (fresh each time, after one ls of its root, which indexes)"

Mounting = Callable[[], AbstractContextManager[Mount]]


def _rootfs(mount: Mount) -> Path:
    return mount.path / "rootfs"


def _top(mount: Mount) -> Path:
    return mount.path


def find_files(top: Path) -> int:
    """Return how many files find lists, without those that only imgfs has."""
    command = ["find", str(top), "-path", str(top / ONLY_ABOVE), "-prune", "-o", "-print0"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.count(b"\0")


def check_same(what: str, counts: set[float]) -> None:
    """Raise Failed if contestants did not do the same work."""
    if len(counts) > 1:
        raise Failed(f"{what}: the contestants saw {sorted(counts)}")


@case(8, "find")
def find(bench: Bench) -> Iterator[Row | Curve]:
    """List all files of rootfs with find(1), in a fresh mount in which one ls of rootfs came before."""
    image, base, tools = bench.inputs.image, bench.inputs.base, bench.tools

    def contestant(mounting: Mounting, top: Callable[[Mount], Path]) -> Contestant:
        def timed() -> Sample:
            with mounting() as mount:
                os.listdir(top(mount))
                started = time.monotonic()
                count = find_files(top(mount))
                return {"": time.monotonic() - started, "count": count}

        return timed

    peers = {name: contestant(mounting, _top) for name, mounting in tools.fuse_peers(base).items()}
    taken = bench.paired({"imgfs": contestant(lambda: tools.imgfs_mount(image.path, *FUSE), _rootfs), **peers})
    check_same("find", {*taken.of("imgfs", "count"), *taken.of("ratarmount", "count")})
    what = f"find, {taken.of('imgfs', 'count')[0]:,.0f} files"
    for peer, bound in ((RATARMOUNT, 0.5), (FUSE_ARCHIVE, 1.1)):
        yield Row(what, "s", taken.of("imgfs"), peer, taken.of(peer), Target("≤", bound), _LOOKED)


@case(9, "read-files")
def read_all_files(bench: Bench) -> Iterator[Row | Curve]:
    """Open, read and close every regular file, in a fresh mount in which one ls of rootfs came before; then again."""
    image, base, names, tools = bench.inputs.image, bench.inputs.base, bench.inputs.base_files, bench.tools

    def contestant(mounting: Mounting, top: Callable[[Mount], Path]) -> Contestant:
        def timed() -> Sample:
            with mounting() as mount:
                os.listdir(top(mount))
                first, total = read_files(top(mount), names)
                again, _ = read_files(top(mount), names)
            return {"first": first, "again": again, "bytes": total}

        return timed

    peers = {name: contestant(mounting, _top) for name, mounting in tools.fuse_peers(base).items()}
    taken = bench.paired({"imgfs": contestant(lambda: tools.imgfs_mount(image.path, *FUSE), _rootfs), **peers})
    check_same("read-files", {*taken.of("imgfs", "bytes"), *taken.of("ratarmount", "bytes")})
    for number, what, bound, cold in (("first", "first time", 0.45, _LOOKED), ("again", "again", 0.35, "nothing")):
        ours, theirs = taken.of("imgfs", number), taken.of("ratarmount", number)
        yield Row(f"read {len(names):,} files, {what}", "s", ours, RATARMOUNT, theirs, Target("≤", bound), cold)
    ours, theirs = taken.of("imgfs", "again"), taken.of(FUSE_ARCHIVE, "again")
    yield Row(f"read {len(names):,} files, again", "s", ours, FUSE_ARCHIVE, theirs, Target("≤", 0.6), "nothing")


_INDEX = """\
import sys, tempfile, time
from fusefs.content.file import Extent, OpenFile
from fusefs.layers.indexer import index_layer
from fusefs.tar.members import ContentSource
with open(sys.argv[1], "rb") as tar, tempfile.TemporaryFile(dir=sys.argv[2]) as index:
    content = Extent(OpenFile(tar.fileno(), "layer"), 0, tar.seek(0, 2))
    started = time.monotonic()
    index_layer(ContentSource(content, "layer"), 0, index)
    print(time.monotonic() - started)
"""
_GET_MEMBERS = """\
import sys, tarfile, time
started = time.monotonic()
with tarfile.open(sys.argv[1], "r:") as tar:
    tar.getmembers()
print(time.monotonic() - started)
"""


@case(10, "index-members")
def index_members(bench: Bench) -> Iterator[Row | Curve]:
    """Index the base layer's tar in a new process, its imports not counted."""
    base, folder = bench.inputs.base, bench.work.new_folder("index")

    def timed(script: str) -> Contestant:
        command = [sys.executable, "-c", script, str(base), str(folder)]

        def contestant() -> Sample:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise Failed(done.stderr)
            return {"": float(done.stdout)}

        return contestant

    with base.open("rb") as tar:
        while tar.read(1 << 20):  # into the page cache
            pass
    taken = bench.paired({"imgfs": timed(_INDEX), "tarfile": timed(_GET_MEMBERS)})
    members = _count_members(base)
    ours, theirs = ([members / seconds for seconds in taken.of(name)] for name in ("imgfs", "tarfile"))
    yield Row("index a layer, members", "/s", ours, "tarfile getmembers", theirs, Target("≥", 3.0), "nothing")


def _count_members(tar: Path) -> int:
    script = "import sys, tarfile; print(len(tarfile.open(sys.argv[1], 'r:').getmembers()))"
    return int(subprocess.run([sys.executable, "-c", script, tar], check=True, capture_output=True).stdout)


@case(11, "ls-again")
def ls_again(bench: Bench) -> Iterator[Row | Curve]:
    """List rootfs for the first time in a new mount whose cache has the index, and in one whose cache is new."""
    image, tools = bench.inputs.image, bench.tools
    cache = bench.work.new_path("cache")

    def listed(cached: Path | None) -> Sample:
        with tools.imgfs_mount(image.path, *FUSE, cache=cached) as mount:
            started = time.monotonic()
            os.listdir(_rootfs(mount))
            return {"": time.monotonic() - started}

    listed(cache)
    taken = bench.paired({"again": lambda: listed(cache), "first": lambda: listed(None)})
    target = Target("≤", 0.2)
    yield Row(
        "first ls rootfs, index cached", "s", taken.of("again"), "imgfs, first time", taken.of("first"), target, FRESH
    )


@case(12, "memory")
def memory(bench: Bench) -> Iterator[Row | Curve]:
    """Take the resident memory of the serving process after the mount, and after find rootfs."""
    inputs, tools = bench.inputs, bench.tools
    images = {"image": inputs.image, "many": inputs.many_members(1_000 if bench.quick else 100_000)}

    def grown(mounting: Mounting, top: Callable[[Mount], Path]) -> Contestant:
        def contestant() -> Sample:
            with mounting() as mount:
                (pid,) = bench.work.served_by(mount.path)
                os.stat(mount.path)
                empty = _resident(pid)
                shared = _proportional(pid)
                listed = subprocess.run(["find", top(mount), "-print0"], check=True, stdout=subprocess.PIPE)
                count = listed.stdout.count(b"\0")
                after = _resident(pid)
            return {"empty": empty, "shared": shared, "after": after, "a member": (after - empty) / count}

        return contestant

    def imgfs(image: Image) -> Contestant:
        return grown(lambda: tools.imgfs_mount(image.path, *FUSE), _rootfs)

    contestants: dict[str, Contestant | None] = {name: imgfs(image) for name, image in images.items()}
    if tools.ratarmount:
        contestants["ratarmount"] = grown(lambda: tools.ratarmount_mount(inputs.base), _top)
    taken = bench.paired(contestants, warm_up=False)
    what, theirs = "resident memory, nothing looked at", taken.of("ratarmount", "empty")
    yield Row(what, "B", taken.of("image", "empty"), "ratarmount", theirs, Target("≤", 50e6, "value"), "nothing")
    yield Row("the same, pages shared with others divided (PSS)", "B", taken.of("image", "shared"), cold="nothing")
    after = "ratarmount", taken.of("ratarmount", "after")
    yield Row("resident memory after find rootfs", "B", taken.of("image", "after"), *after, cold="nothing")
    bound = Target("≤", 400, "value")
    yield Row("growth for a member, the image", "B", taken.of("image", "a member"), target=bound, cold="nothing")
    yield Row("growth for a member, 100,000 files", "B", taken.of("many", "a member"), target=bound, cold="nothing")


def _resident(pid: int) -> int:
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS:") * 1024


def _proportional(pid: int) -> int:
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024


def _kilobytes(path: Path, name: str) -> int:
    (line,) = (line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
