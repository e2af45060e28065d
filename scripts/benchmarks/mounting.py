"""Mounting: an archive, large archives, an engine's image, and the command itself."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.bench import Bench, Contestant, Sample, case
from benchmarks.inputs import NAME, Blob, Image
from benchmarks.reading import first_byte
from benchmarks.results import Curve, Row, Target
from benchmarks.tools import blob_of, member_of
from benchmarks.workplace import Mount


def _until_first_byte(
    mount: AbstractContextManager[Mount], at: Callable[[Mount, Blob], Path], blob: Blob
) -> dict[str, float]:
    with mount as mounted:
        first_byte(at(mounted, blob))
        return {"": mounted.since_start()}


@case(1, "mount-archive")
def mount_archive(bench: Bench) -> Iterator[Row | Curve]:
    """Mount an archive: from starting the command until the first byte of its largest blob was read."""
    image, tools = bench.inputs.image, bench.tools

    def imgfs() -> Sample:
        return _until_first_byte(tools.imgfs_mount(image.path), blob_of, image.largest)

    def ratarmount() -> Sample:
        return _until_first_byte(tools.ratarmount_mount(image.path), member_of, image.largest)

    def archivemount() -> Sample:
        return _until_first_byte(tools.archivemount_mount(image.path), member_of, image.largest)

    def cold(contestant: Contestant) -> Contestant:
        def after_dropping() -> Sample:
            bench.drop_caches()
            return contestant()

        return after_dropping

    warm = bench.paired(
        {
            "imgfs": imgfs,
            "ratarmount": ratarmount if tools.ratarmount else None,
            "archivemount": archivemount if tools.archivemount else None,
        }
    )
    what = "archive until a blob's first byte"
    yield Row(what, "s", warm.of("imgfs"), "ratarmount", warm.of("ratarmount"), Target("≤", 0.9), "nothing")
    yield Row(what, "s", warm.of("imgfs"), "archivemount", warm.of("archivemount"), None, "nothing")
    if bench.root and not bench.quick:
        dropped = bench.paired(
            {"imgfs": cold(imgfs), "ratarmount": cold(ratarmount) if tools.ratarmount else None}, warm_up=False
        )
        ours, theirs = dropped.of("imgfs"), dropped.of("ratarmount")
        yield Row(what, "s", ours, "ratarmount", theirs, None, "all, programs too (drop_caches)")
        _ = bench.inputs.image  # in the page cache again


_SIZES = (400_000_000, 5_000_000_000, 50_000_000_000)
_MEMBERS = (100, 1_000, 5_000, 10_000)
_LAYERS = (1, 10, 50, 100)


@case(2, "mount-scale")
def mount_scale(bench: Bench) -> Iterator[Row | Curve]:
    """Mount sparse archives as above: 0.4 to 50 GB, 100 to 10,000 outer members, 1 to 100 layers."""
    inputs, tools = bench.inputs, bench.tools
    sizes, members, layers = (
        steps[:: len(steps) - 1] if bench.quick else steps for steps in (_SIZES, _MEMBERS, _LAYERS)
    )
    archives = {f"{size} bytes": inputs.sparse(size=size) for size in sizes}
    archives |= {f"{count} members": inputs.sparse(members=count) for count in members}
    archives |= {f"{count} layers": inputs.sparse(layers=count, members=120) for count in layers}

    def imgfs(image: Image) -> Contestant:
        return lambda: _until_first_byte(tools.imgfs_mount(image.path), blob_of, image.largest)

    def ratarmount(image: Image) -> Contestant:
        return lambda: _until_first_byte(tools.ratarmount_mount(image.path), member_of, image.largest)

    contestants: dict[str, Contestant | None] = {f"imgfs, {name}": imgfs(image) for name, image in archives.items()}
    for name, image in archives.items():
        contestants[f"ratarmount, {name}"] = ratarmount(image) if tools.ratarmount else None
    taken = bench.paired(contestants)

    def samples(tool: str, what: str, steps: tuple[int, ...]) -> dict[float, list[float]]:
        return {step: taken.of(f"{tool}, {step} {what}") for step in steps}

    large, small = (taken.of(f"imgfs, {size} bytes") for size in (sizes[-1], sizes[0]))
    yield Row("50 GB (sparse)", "s", large, "imgfs, 0.4 GB", small, Target("≤", 1.2), "nothing")
    few, *middle, many = (taken.of(f"imgfs, {count} members") for count in members)
    if middle:
        line = _extrapolated(members[0], few, members[-2], middle[-1], members[-1])
        peer = f"imgfs, on a line through {members[0]} and {members[-2]:,}"
        yield Row(f"{members[-1]:,} outer members", "s", many, peer, line, Target("≤", 1.2), "nothing")
    else:
        yield Row(f"{members[-1]:,} outer members", "s", many, f"imgfs, {members[0]}", few, None, "nothing")
    for what, steps in (("bytes", sizes), ("members", members), ("layers", layers)):
        lines = {tool: samples(tool, what, steps) for tool in ("imgfs", "ratarmount")}
        yield Curve("Mount until a blob's first byte", f"{what} of the archive", "s", lines)
    for image in archives.values():
        image.path.unlink()


def _extrapolated(x: int, at_x: list[float], y: int, at_y: list[float], z: int) -> list[float]:
    """Return for each round what *z* takes if that grows as it does from *x* to *y*."""
    return [low + (high - low) / (y - x) * (z - x) for low, high in zip(at_x, at_y, strict=True)]


def _engine_row(bench: Bench, what: str, bound: float, cache: Path | None) -> Iterator[Row]:
    engine, tools = bench.engine, bench.tools

    def imgfs() -> Sample:
        with tools.imgfs_mount(NAME, "--host", engine.host, cache=cache) as mount:
            return {"": mount.seconds}

    def save() -> Sample:
        started = time.monotonic()
        engine.save()
        return {"": time.monotonic() - started}

    def skopeo() -> Sample:
        folder = bench.work.new_path("skopeo")
        started = time.monotonic()
        source = ("--src-daemon-host", engine.host, f"docker-daemon:{NAME}")
        bench.work.run(["skopeo", "copy", "--insecure-policy", *source, f"dir:{folder}"])
        seconds = time.monotonic() - started
        shutil.rmtree(folder)
        return {"": seconds}

    save()
    if cache:
        imgfs()
    contestants = {"imgfs": imgfs, "docker save": save, "skopeo": skopeo if shutil.which("skopeo") else None}
    taken = bench.paired(contestants, warm_up=False)
    ours = taken.of("imgfs")
    yield Row(what, "s", ours, "docker save -o", taken.of("docker save"), Target("≤", bound), "nothing")
    yield Row(what, "s", ours, "skopeo copy docker-daemon: dir:", taken.of("skopeo"), cold="nothing")


@case(3, "engine-first", "root", "dockerd", "docker", "containerd")
def engine_first(bench: Bench) -> Iterator[Row | Curve]:
    """Mount an engine's image for the first time: until the command returns."""
    yield from _engine_row(bench, "engine's image, first mount", 1.1, None)


@case(4, "engine-again", "root", "dockerd", "docker", "containerd")
def engine_again(bench: Bench) -> Iterator[Row | Curve]:
    """Mount an engine's image again: until the command returns."""
    yield from _engine_row(bench, "engine's image, mounted again", 0.12, bench.work.new_path("cache"))


@case(15, "help")
def help_(bench: Bench) -> Iterator[Row | Curve]:
    """Start the command: imgfs --help and the bare interpreter."""

    def seconds(*command: str) -> Sample:
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {"": time.monotonic() - started}

    taken = bench.paired(
        {
            "imgfs": lambda: seconds(bench.tools.imgfs, "--help"),
            "python": lambda: seconds(sys.executable, "-c", "pass"),
        }
    )
    target = Target("≤", 0.1, "difference")
    yield Row("imgfs --help", "s", taken.of("imgfs"), "python -c pass", taken.of("python"), target, "nothing")
