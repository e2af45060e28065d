"""Kernel mounts beside unpacked files on ext4, and beside FUSE.

The archive comes through a pipe, so imgfs has its own copy of it.  All contestants show the base layer's files.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks import reading
from benchmarks.bench import FRESH, Bench, Contestant, Sample, Samples, case
from benchmarks.inputs import NAME
from benchmarks.reading import MIB, read_files
from benchmarks.results import Curve, Row, Target
from benchmarks.tools import EROFS, FUSE_PEERS, RATARMOUNT, blob_of, member_of
from benchmarks.trees import check_same, find_files
from benchmarks.workplace import Failed, Mount

_REQUEST = 128 * 1024
_EXT4 = "the same files on ext4"
_OVERLAY = "overlay of that ext4"
_PODMAN = "podman image mount"
_BEST = "fastest FUSE peer"
"""In each round; the row names all of them."""
_NEEDS = ("root", "mkfs.ext4")

Mounting = Callable[[], AbstractContextManager[Mount]]


@contextlib.contextmanager
def _overlay(bench: Bench) -> Iterator[Mount]:
    """Mount the unpacked files below an empty layer, as engines do."""
    with bench.work.mounted(["mount", "-o", "ro,loop", bench.inputs.ext4]) as files:
        layers = f"lowerdir={bench.work.new_folder('empty')}:{files.path}"
        with bench.work.mounted(["mount", "-t", "overlay", "overlay", "-o", layers]) as mount:
            yield mount


def _paired(bench: Bench, measure: Callable[[Path], Sample]) -> Samples:
    """Let all contestants *measure* a directory with the base layer's files in a fresh mount."""
    image, tools = bench.inputs.image, bench.tools
    ext4 = bench.inputs.ext4

    def contestant(mounting: Mounting, below: str = "") -> Contestant:
        def timed() -> Sample:
            with mounting() as mount:
                return measure(mount.path / below)

        return timed

    contestants: dict[str, Contestant | None] = {
        "imgfs": contestant(lambda: tools.imgfs_mount_pipe(image.path, *EROFS), "rootfs"),
        _EXT4: contestant(lambda: bench.work.mounted(["mount", "-o", "ro,loop", ext4])),
        _OVERLAY: contestant(lambda: _overlay(bench)),
        _PODMAN: contestant(bench.podman.mounted) if shutil.which("podman") else None,
    }
    for name, mounting in tools.fuse_peers(bench.inputs.base).items():
        contestants[name] = contestant(mounting)
    return bench.paired(contestants)


def _rows(what: str, taken: Samples, number: str, targets: Mapping[str, Target], cold: str) -> Iterator[Row]:
    """Yield a row for each peer, those with a target first; the peers with FUSE have one, of the fastest each time."""
    theirs = {peer: taken.of(peer, number) for peer in (_EXT4, _OVERLAY, _PODMAN)}
    fuse = {peer: samples for peer in FUSE_PEERS if (samples := taken.of(peer, number))}
    theirs[_BEST] = [min(samples) for samples in zip(*fuse.values(), strict=True)]
    for peer in sorted(theirs, key=lambda peer: peer not in targets):
        if theirs[peer] or peer in targets:
            name = " or ".join(fuse or FUSE_PEERS) if peer == _BEST else peer
            yield Row(what, "s", taken.of("imgfs", number), name, theirs[peer], targets.get(peer), cold)


@case(19, "kernel-find", *_NEEDS)
def kernel_find(bench: Bench) -> Iterator[Row | Curve]:
    """List all files with find(1) in a fresh kernel mount."""

    def measure(top: Path) -> Sample:
        started = time.monotonic()
        count = find_files(top)
        return {"": time.monotonic() - started, "count": count}

    taken = _paired(bench, measure)
    check_same("kernel-find", {count for name in ("imgfs", RATARMOUNT) for count in taken.of(name, "count")})
    what = f"kernel: find, {taken.of('imgfs', 'count')[0]:,.0f} files"
    yield from _rows(what, taken, "", {_EXT4: Target("≤", 1.0), _BEST: Target("≤", 0.15)}, FRESH)


@case(20, "kernel-stat", *_NEEDS)
def kernel_stat(bench: Bench) -> Iterator[Row | Curve]:
    """Take lstat of every regular file in a fresh kernel mount."""
    names = bench.inputs.base_files

    def measure(top: Path) -> Sample:
        paths = [top / name for name in names]
        started = time.monotonic()
        for path in paths:
            os.lstat(path)
        return {"": time.monotonic() - started}

    what = f"kernel: lstat of {len(names):,} files"
    yield from _rows(what, _paired(bench, measure), "", {_EXT4: Target("≤", 1.0), _BEST: Target("≤", 0.15)}, FRESH)


@case(21, "kernel-read-files", *_NEEDS)
def kernel_read_files(bench: Bench) -> Iterator[Row | Curve]:
    """Open, read and close every regular file in a fresh kernel mount; then again."""
    names = bench.inputs.base_files

    def measure(top: Path) -> Sample:
        first, total = read_files(top, names)
        again, _ = read_files(top, names)
        return {"first": first, "again": again, "bytes": total}

    taken = _paired(bench, measure)
    check_same("kernel-read-files", {count for name in ("imgfs", _EXT4) for count in taken.of(name, "bytes")})
    for number, when, bound, cold in (("first", "first time", 0.6, FRESH), ("again", "again", 1.1, "nothing")):
        what = f"kernel: read {len(names):,} files, {when}"
        yield from _rows(what, taken, number, {_EXT4: Target("≤", bound)}, cold)


@case(22, "kernel-blob", "root")
def kernel_blob(bench: Bench) -> Iterator[Row | Curve]:
    """Read the largest blob of a fresh kernel mount twice in order, and 4 KiB at random offsets in another one.

    Not both in one: random reads leave the page cache in pieces of 4 KiB, which later reads copy at half the rate.
    """
    image, tools = bench.inputs.image, bench.tools
    blob = image.largest
    offsets = reading.random_pages(blob.size, 50 if bench.quick else 5_000)

    def latency(mounting: Mounting, path_of: Callable[[Mount], Path]) -> Sample:
        with mounting() as mount:
            descriptor = os.open(path_of(mount), os.O_RDONLY)
            try:
                return {"latency": statistics.median(reading.latencies(descriptor, offsets))}
            finally:
                os.close(descriptor)

    def imgfs() -> Sample:
        mounting = partial(tools.imgfs_mount_pipe, image.path, *EROFS)
        with mounting() as mount:
            path = blob_of(mount, blob)
            reading.rate(path, MIB, 0, blob.size)
            rate = {"rate": reading.rate(path, _REQUEST, 0, blob.size)}
        return {**rate, **latency(mounting, lambda mount: blob_of(mount, blob))}

    contestants: dict[str, Contestant | None] = {
        "imgfs": imgfs,
        "raw": lambda: {"rate": reading.rate(image.path, _REQUEST, blob.offset, blob.offset + blob.size)},
    }
    for name, mounting in tools.fuse_peers(image.path).items():
        contestants[name] = partial(latency, mounting, lambda mount: member_of(mount, blob))
    taken = bench.paired(contestants)
    what, raw = "kernel: blob again, 128 KiB requests", "raw read of the tarball"
    yield Row(what, "B/s", taken.of("imgfs", "rate"), raw, taken.of("raw", "rate"), Target("≥", 0.9), "nothing")
    what = "kernel: 4 KiB at random, median"
    yield from _rows(what, taken, "latency", {_BEST: Target("≤", 0.35)}, FRESH)


@case(23, "mount-kept", "root", "dockerd", "docker", "containerd")
def mount_kept(bench: Bench) -> Iterator[Row | Curve]:
    """Mount an engine's image whose metadata are cached: until the command returns."""
    engine, tools, cache = bench.engine, bench.tools, bench.work.new_path("cache")

    def imgfs() -> Sample:
        with tools.imgfs_mount(NAME, "--host", engine.host, cache=cache) as mount:
            if bench.work.served_by(mount.path):
                raise Failed("mount-kept: FUSE serves the mount")
            return {"": mount.seconds}

    def save() -> Sample:
        started = time.monotonic()
        engine.save()
        return {"": time.monotonic() - started}

    with tools.imgfs_mount(NAME, "--host", engine.host, *EROFS, cache=cache):
        pass
    taken = bench.paired({"imgfs": imgfs, "docker save": save}, warm_up=False)
    what, ours = "kernel: engine's image, metadata cached", taken.of("imgfs")
    yield Row(what, "s", ours, "docker save -o", taken.of("docker save"), Target("≤", 0.02), "nothing")
    yield Row(what, "s", ours, target=Target("≤", 0.04, "value"), cold="nothing")


@case(24, "mount-erofs", "root")
def mount_erofs(bench: Bench) -> Iterator[Row | Curve]:
    """Mount an archive of 10,000 members by the kernel, nothing cached: until the command returns."""
    image, tools = bench.inputs.many_members(100 if bench.quick else 10_000), bench.tools

    def seconds(mounting: Mounting) -> Contestant:
        def timed() -> Sample:
            with mounting() as mount:
                return {"": mount.seconds}

        return timed

    layer = bench.work.new_path("layer.tar")
    with image.path.open("rb") as archive, layer.open("wb") as out:
        archive.seek(image.largest.offset)
        out.write(archive.read(image.largest.size))
    taken = bench.paired(
        {
            "imgfs": seconds(lambda: tools.imgfs_mount_pipe(image.path, *EROFS)),
            "ratarmount": seconds(lambda: tools.ratarmount_mount(layer)) if tools.ratarmount else None,
        }
    )
    layer.unlink()
    what = "kernel: mount of 10,000 members, nothing cached"
    yield Row(what, "s", taken.of("imgfs"), "ratarmount", taken.of("ratarmount"), Target("≤", 1.3), "nothing")


_WRITE = """\
import os, resource, sys, time
from fusefs.erofs.writer import write
from fusefs.image.opened import Opened
from fusefs.mount.view import ViewOptions, image_view
from fusefs.progress import Silent
from fusefs.sources import open_image
from fusefs.sources.settings import Settings
archive, folder = sys.argv[1:]
settings = Settings(None, None, folder, False, None, {}, Silent())
opened = Opened(open_image(archive, settings), folder, Silent())
view = image_view(opened.image, opened.layers, ViewOptions(uid=0, gid=0))
opened.index()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.monotonic()
with open(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), "w+b") as out:
    write(view, out)
seconds = time.monotonic() - started
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@case(25, "erofs-write")
def erofs_write(bench: Bench) -> Iterator[Row | Curve]:
    """Write the metadata of an indexed image of 100,000 members in a new process."""
    count = 1_000 if bench.quick else 100_000
    image, folder = bench.inputs.many_members(count), bench.work.new_folder("metadata")

    def written() -> Sample:
        command = [sys.executable, "-c", _WRITE, str(image.path), str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr)
        seconds, grown = map(float, done.stdout.split())
        return {"rate": count / seconds, "memory": grown}

    taken = bench.paired({"imgfs": written})
    rate, memory = taken.of("imgfs", "rate"), taken.of("imgfs", "memory")
    yield Row("write metadata, members", "/s", rate, target=Target("≥", 300_000, "value"), cold="nothing")
    bound = Target("≤", 60e6 + 20 * count, "value")
    yield Row(f"growth of memory, metadata of {count:,} members", "B", memory, target=bound, cold="nothing")
