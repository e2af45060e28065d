"""Reading blobs: from beginning to end, again, at random places, by many, and while a layer is indexed."""

import contextlib
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import reading
from benchmarks.bench import CASES, FRESH, Bench, Contestant, Sample, case
from benchmarks.inputs import NAME, Blob
from benchmarks.reading import MIB
from benchmarks.results import Curve, Row, Target
from benchmarks.tools import FUSE, Tools, blob_of, member_of
from benchmarks.workplace import Mount

_READER = str(Path(reading.__file__))
_REQUEST = 128 * 1024

Mounting = Callable[[], AbstractContextManager[Mount]]
Where = Callable[[Mount, Blob], Path]


def _cold(mounting: Mounting, where: Where, blob: Blob, *, parts: int = 1) -> Contestant:
    """Return a reader of the *blob*, or of the first of so many *parts*, in a fresh mount, with requests of 1 MiB."""

    def contestant() -> Sample:
        with mounting() as mount:
            return {"": reading.rate(where(mount, blob), MIB, 0, blob.size // parts)}

    return contestant


def _cold_as_user(user: Tools, mounting: Mounting, where: Where, blob: Blob) -> Contestant:
    """Return the same for another user, the only one with access to the mount."""

    def contestant() -> Sample:
        with mounting() as mount:
            ((began, ended),) = _side_by_side(where(mount, blob), [(0, blob.size)], user.prefix)
        return {"": blob.size / (ended - began)}

    return contestant


@case(5, "blob-cold")
def blob_cold(bench: Bench) -> Iterator[Row | Curve]:
    """Read the largest blob from beginning to end in a fresh mount, requests of 1 MiB."""
    image, tools = bench.inputs.image, bench.tools
    blob = image.largest
    cache = bench.work.new_path("cache")
    contestants = {
        "archive": _cold(lambda: tools.imgfs_mount(image.path, *FUSE), blob_of, blob),
        "pipe": _cold(lambda: tools.imgfs_mount_pipe(image.path, *FUSE), blob_of, blob),
    }
    if not CASES["engine-again"].missing():
        host = bench.engine.host
        contestants["cache"] = _cold(lambda: tools.imgfs_mount(NAME, "--host", host, *FUSE, cache=cache), blob_of, blob)
    if tools.ratarmount:
        contestants["ratarmount"] = _cold(lambda: tools.ratarmount_mount(image.path), member_of, blob)
    if tools.archivemount:
        # A request out of order makes it scan from the beginning: the whole takes it most of a minute.
        mounting = lambda: tools.archivemount_mount(image.path)  # noqa: E731
        contestants["archivemount"] = _cold(mounting, member_of, blob, parts=10)
    with tools.as_user() as user:
        if user:
            contestants["user"] = _cold_as_user(user, lambda: user.imgfs_mount(image.path, *FUSE), blob_of, blob)
        if user and tools.ratarmount:
            contestants["its user"] = _cold_as_user(user, lambda: user.ratarmount_mount(image.path), member_of, blob)
        taken = bench.paired(contestants)
    theirs = taken.of("ratarmount")
    sources = (("archive", "archive", 1.4), ("pipe", "spool (a pipe)", 2.0), ("cache", "cache (an engine)", 2.0))
    for name, what, bound in sources:
        if ours := taken.of(name):
            yield Row(f"blob, sequential, from {what}", "B/s", ours, "ratarmount", theirs, Target("≥", bound), FRESH)
    if ours := taken.of("user"):
        what = "blob, sequential, from archive, rootless"
        yield Row(what, "B/s", ours, "ratarmount, rootless", taken.of("its user"), None, FRESH)
    what, peer = "blob, sequential, from archive", "archivemount, the first tenth"
    yield Row(what, "B/s", taken.of("archive"), peer, taken.of("archivemount"), None, FRESH)


@case(6, "blob-warm")
def blob_warm(bench: Bench) -> Iterator[Row | Curve]:
    """Read the largest blob for the second time in a mount, requests of 128 KiB."""
    image, tools = bench.inputs.image, bench.tools
    blob = image.largest

    def second(mounting: Mounting, where: Where) -> Contestant:
        def contestant() -> Sample:
            with mounting() as mount:
                path = where(mount, blob)
                reading.rate(path, MIB, 0, blob.size)
                return {"": reading.rate(path, _REQUEST, 0, blob.size)}

        return contestant

    taken = bench.paired(
        {
            "imgfs": second(lambda: tools.imgfs_mount(image.path, *FUSE), blob_of),
            "ratarmount": second(lambda: tools.ratarmount_mount(image.path), member_of) if tools.ratarmount else None,
            "raw": lambda: {"": reading.rate(image.path, _REQUEST, blob.offset, blob.offset + blob.size)},
        }
    )
    ours, what = taken.of("imgfs"), "blob again, 128 KiB requests"
    yield Row(what, "B/s", ours, "ratarmount", taken.of("ratarmount"), Target("≥", 3.0), "nothing")
    yield Row(what, "B/s", ours, "raw read of the tarball", taken.of("raw"), Target("≥", 0.6), "nothing")


@case(7, "random-4k")
def random_4k(bench: Bench) -> Iterator[Row | Curve]:
    """Read 4 KiB at random offsets of the largest blob in a fresh mount, none twice: the median latency."""
    image, tools = bench.inputs.image, bench.tools
    blob = image.largest
    offsets = reading.random_pages(blob.size, 50 if bench.quick else 5_000)

    def at_random(mounting: Mounting, where: Where) -> Contestant:
        def contestant() -> Sample:
            with mounting() as mount, _opened(where(mount, blob)) as descriptor:
                return {"": statistics.median(reading.latencies(descriptor, offsets))}

        return contestant

    taken = bench.paired(
        {
            "imgfs": at_random(lambda: tools.imgfs_mount(image.path, *FUSE), blob_of),
            "ratarmount": at_random(lambda: tools.ratarmount_mount(image.path), member_of)
            if tools.ratarmount
            else None,
        }
    )
    what = "4 KiB at random, median latency"
    yield Row(what, "s", taken.of("imgfs"), "ratarmount", taken.of("ratarmount"), Target("≤", 0.85), FRESH)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _side_by_side(
    path: Path, ranges: Sequence[tuple[int, int]], prefix: tuple[str, ...] = ()
) -> list[tuple[float, float]]:
    """Read each range of *path* in a process of its own, all at once; return when each began and ended."""
    readers = [
        subprocess.Popen(
            [*prefix, sys.executable, "-I", _READER, str(MIB), str(begin), str(end), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for begin, end in ranges
    ]
    try:
        for reader in readers:
            assert reader.stdout
            reader.stdout.readline()
        for reader in readers:
            assert reader.stdin
            reader.stdin.write("\n")
            reader.stdin.flush()
        times = [reader.communicate()[0].split() for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    return [(float(began), float(ended)) for began, ended in times]


@case(13, "readers")
def readers(bench: Bench) -> Iterator[Row | Curve]:
    """Read the largest blob in a fresh mount by 1 to 16 processes, each its own part, requests of 1 MiB."""
    image, tools = bench.inputs.image, bench.tools
    blob = image.largest
    counts = (1, 8) if bench.quick else (1, 2, 4, 8, 16)

    def together(mounting: Mounting, where: Where, count: int) -> Contestant:
        part = blob.size // count
        ranges = [(number * part, (number + 1) * part) for number in range(count)]

        def contestant() -> Sample:
            with mounting() as mount:
                times = _side_by_side(where(mount, blob), ranges)
            seconds = [ended - began for began, ended in times]
            total = count * part / (max(ended for _, ended in times) - min(began for began, _ in times))
            return {"total": total, "slowest": statistics.mean(seconds) / max(seconds)}

        return contestant

    contestants = {f"imgfs {n}": together(lambda: tools.imgfs_mount(image.path, *FUSE), blob_of, n) for n in counts}
    if tools.ratarmount:
        theirs = {f"ratarmount {n}": together(lambda: tools.ratarmount_mount(image.path), member_of, n) for n in counts}
        contestants |= theirs
    taken = bench.paired(contestants)
    one, eight = taken.of("imgfs 1", "total"), taken.of("imgfs 8", "total")
    what = "8 readers at once, total"
    yield Row(what, "B/s", eight, "imgfs, 1 reader", one, Target("≥", 1.0), FRESH)
    yield Row(what, "B/s", eight, "ratarmount, 8 readers", taken.of("ratarmount 8", "total"), None, FRESH)
    target = Target("≥", 0.5, "value")
    yield Row("the slowest of 8: mean time ÷ its time", "", taken.of("imgfs 8", "slowest"), target=target, cold=FRESH)
    lines = {
        tool: {float(n): [rate / 1e9 for rate in taken.of(f"{tool} {n}", "total")] for n in counts}
        for tool in ("imgfs", "ratarmount")
    }
    yield Curve("Readers of one blob at once", "readers", "GB/s in total", lines)


@case(14, "latency-while-indexing")
def latency_while_indexing(bench: Bench) -> Iterator[Row | Curve]:
    """Read 4 KiB at random offsets of a blob while a layer of 1,000,000 members is indexed, and with nothing to do."""
    image, tools = bench.inputs.many_members(34_000 if bench.quick else 1_000_000), bench.tools
    blob = image.largest
    offsets = reading.random_pages(blob.size, 100 if bench.quick else 2_000)

    def latency(*, indexing: bool) -> Sample:
        with tools.imgfs_mount(image.path, *FUSE) as mount, _opened(blob_of(mount, blob)) as descriptor:
            looker = threading.Thread(target=os.listdir, args=(mount.path / "layers" / "0",))
            seconds: list[float] = []
            if indexing:
                looker.start()
            while True:
                seconds += reading.latencies(descriptor, offsets)
                if not looker.is_alive():
                    break
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # or they would be read from the page cache
            return {"": statistics.median(seconds), "worst": max(seconds)}

    taken = bench.paired(
        {"indexing": lambda: latency(indexing=True), "idle": lambda: latency(indexing=False)}, warm_up=False
    )
    cold = f"{FRESH}; its pages (POSIX_FADV_DONTNEED)"
    target = Target("≤", 3.0)
    busy, idle = taken.of("indexing"), taken.of("idle")
    yield Row("4 KiB at random while a layer is indexed, median", "s", busy, "imgfs, idle", idle, target, cold)
    worst = (taken.of("indexing", "worst"), taken.of("idle", "worst"))
    yield Row("the same, the longest", "s", worst[0], "imgfs, idle", worst[1], None, cold)
