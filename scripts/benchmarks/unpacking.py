"""Ways to look at one file without imgfs: convert and unpack an archive, load it into an engine, unpack a layout."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, Contestant, Sample, case
from benchmarks.inputs import NAME, ONLY_ABOVE
from benchmarks.layouts import TAG
from benchmarks.reading import first_byte
from benchmarks.results import Curve, Row, Target


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
        folder = work.new_folder("p")  # podman takes no path of more than 50 characters for --runroot
        podman = ["podman", f"--root={folder}/root", f"--runroot={folder}/r", f"--tmpdir={folder}/t"]
        podman += ["--storage-driver=overlay", "--events-backend=none"]
        environment = os.environ | {"TMPDIR": str(folder)}
        started = time.monotonic()
        work.run([*podman, "load", "--quiet", "--input", image.path], environment)
        mounting = [*podman, "image", "mount", f"localhost/{NAME}"]
        printed = subprocess.run(mounting, env=environment, check=True, capture_output=True, text=True).stdout
        first_byte(f"{printed.strip()}/{name}")
        seconds = time.monotonic() - started
        work.run([*podman, "image", "unmount", "--all"], environment)
        work.unmount_below(folder)
        shutil.rmtree(folder)
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

    def mounted() -> Sample:
        with tools.imgfs_mount(f"oci:{layout}:{TAG}") as mount:
            first_byte(mount.path / "rootfs" / name)
            return {"": mount.since_start()}

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
        "mount": mounted,
        "cat": printed(name),
        "upper": printed(f"{ONLY_ABOVE}/text-0000"),
        "umoci": unpacked,
    }
    taken = bench.paired(contestants, warm_up=False)
    theirs, peer = taken.of("umoci"), "umoci unpack"
    target = Target("≤", 0.5)
    yield Row("gzip layers until a file's first byte", "s", taken.of("mount"), peer, theirs, target, "nothing")
    yield Row("gzip layers, imgfs cat, base layer", "s", taken.of("cat"), peer, theirs, cold="nothing")
    yield Row("gzip layers, imgfs cat, upper layer", "s", taken.of("upper"), peer, theirs, cold="nothing")
