"""Ways to look at one file without imgfs: convert and unpack an archive, load it into an engine, unpack a layout."""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.bench import Bench, Contestant, Sample, case
from benchmarks.inputs import ONLY_ABOVE
from benchmarks.layouts import TAG
from benchmarks.podman import Podman
from benchmarks.reading import first_byte
from benchmarks.results import Curve, Row, Target
from benchmarks.tools import Tools


@case(16, "first-file")
def first_file(bench: Bench) -> Iterator[Row | Curve]:
    """Go from an archive to the first byte of one file of the merged layers; not in the table of targets."""
    image, tools, work = bench.inputs.image, bench.tools, bench.work
    name = next(name for name, size in bench.inputs.base_files.items() if size)

    def imgfs() -> Sample:
        with tools.imgfs_mount(image.path) as mount:
            first_byte(mount.path / "rootfs" / name)
            return {"": mount.since_start()}

    def unpacked() -> Sample:
        folder = work.new_folder("unpacked")
        started = time.monotonic()
        layout = f"{folder}/layout:latest"
        work.run(["skopeo", "copy", "--insecure-policy", f"docker-archive:{image.path}", f"oci:{layout}"])
        work.run(["umoci", "unpack", *([] if bench.root else ["--rootless"]), "--image", layout, folder / "bundle"])
        first_byte(folder / "bundle" / "rootfs" / name)
        seconds = time.monotonic() - started
        shutil.rmtree(folder)
        return {"": seconds}

    def loaded() -> Sample:
        podman = Podman.new(work)
        started = time.monotonic()
        podman.load(image)
        with podman.mounted() as mount:
            first_byte(mount.path / name)
            seconds = time.monotonic() - started
        podman.remove()
        return {"": seconds}

    here = {program for program in ("skopeo", "umoci", "podman") if shutil.which(program)}
    taken = bench.paired(
        {
            "imgfs": imgfs,
            "unpacked": unpacked if here >= {"skopeo", "umoci"} else None,
            "loaded": loaded if "podman" in here and bench.root else None,
        },
        warm_up=False,
    )
    ours, what = taken.of("imgfs"), "archive until a file's first byte"
    yield Row(what, "s", ours, "skopeo copy, umoci unpack", taken.of("unpacked"), cold="nothing")
    yield Row(what, "s", ours, "podman load, podman image mount", taken.of("loaded"), cold="nothing")


@case(18, "first-gzip", "umoci")
def first_gzip(bench: Bench) -> Iterator[Row | Curve]:
    """Go from an image layout with gzip layers to the first byte of one file: mounted, by imgfs cat, or unpacked."""
    layout, tools, work = bench.inputs.gzip_layout, bench.tools, bench.work
    name = next(name for name, size in bench.inputs.base_files.items() if size)

    def mounted(tools: Tools) -> Contestant:
        def sample() -> Sample:
            with tools.imgfs_mount(f"oci:{layout}:{TAG}") as mount:
                first_byte(mount.path / "rootfs" / name)
                return {"": mount.since_start()}

        return sample

    def printed(path: str) -> Contestant:
        def sample() -> Sample:
            started = time.monotonic()
            work.run([tools.imgfs, "cat", "--no-cache", f"oci:{layout}:{TAG}:/{path}"])
            return {"": time.monotonic() - started}

        return sample

    def unpacked() -> Sample:
        bundle = work.new_path("bundle")
        started = time.monotonic()
        work.run(["umoci", "unpack", *([] if bench.root else ["--rootless"]), "--image", f"{layout}:{TAG}", bundle])
        first_byte(bundle / "rootfs" / name)
        seconds = time.monotonic() - started
        shutil.rmtree(bundle)
        return {"": seconds}

    contestants = {
        "mount": mounted(tools),
        "plain": mounted(replace(tools, own=str(_without_isal(work.new_path("imgfs"))))),
        "cat": printed(name),
        "upper": printed(f"{ONLY_ABOVE}/text-0000"),
        "umoci": unpacked,
    }
    taken = bench.paired(contestants, warm_up=False)
    theirs, peer = taken.of("umoci"), "umoci unpack"
    target = Target("≤", 0.5)
    what, ours = "gzip layers until a file's first byte", taken.of("mount")
    yield Row(what, "s", ours, peer, theirs, target, "nothing")
    yield Row(what, "s", ours, "imgfs, Python's gzip", taken.of("plain"), Target("≤", 0.4), "nothing")
    yield Row("gzip layers, imgfs cat, base layer", "s", taken.of("cat"), peer, theirs, cold="nothing")
    yield Row("gzip layers, imgfs cat, upper layer", "s", taken.of("upper"), peer, theirs, cold="nothing")


def _without_isal(program: Path) -> Path:
    """Write a command imgfs that decompresses gzip as Python does, and return its path."""
    lines = ("import sys", "sys.modules['isal'] = None", "from fusefs.cli import main", "sys.exit(main())")
    program.write_text("\n".join([f"#!{sys.executable}", *lines, ""]))
    program.chmod(0o755)
    return program
