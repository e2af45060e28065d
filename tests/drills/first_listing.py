"""How soon `rootfs/` of an image with plain gzip layers is listed over a slow link, next to `skopeo copy`.

If crane is there, `crane export` is measured, too.  The registry speaks TLS.

    scripts/soak first-listing [RUNS [MEGABITS [LAYERS [TIMES]]]]

The link has a round trip of 50 ms and 100 Mbit/s, or as many as are given; for each 100 of these, the image has 23 MB,
56 MB plain: `skopeo copy` takes 2 s.  It has two layers, or as many as are given.  With TIMES, the results are those of
a machine that is so many times as fast: the link is so many times as slow, and all times are divided by it.
"""

import itertools
import random
import shutil
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.drills.first_byte import certificates, exported, took, trusting, work_folder
from tests.support.builders import layer
from tests.support.layouts import Layout
from tests.support.mounts import COMMAND
from tests.support.registries import push, registry
from tests.support.slow_link import slow_link


def _tars(scale: int, layers: int = 2) -> list[bytes]:
    """Return *layers* of text that gzip compresses to 40 %, *scale* times 56 MB; the top one has little of it."""
    draw = random.Random(1)
    words = [draw.randbytes(8).hex().encode() for _ in range(4000)]
    text = [b" ".join(draw.choices(words, k=2000)) for _ in range(1600)]
    files = {f"usr/{copy}/file{number}": data for copy in range(scale) for number, data in enumerate(text[:1500])}
    lower = layers - 1
    return [
        *(layer(dict(itertools.islice(files.items(), number, None, lower))) for number in range(lower)),
        layer({f"app/file{number}": data for number, data in enumerate(text[1500:])}),
    ]


class _Listed(NamedTuple):
    """Seconds."""

    mount: float
    ls: float


def _listed(image: str, work: Path) -> _Listed:
    """Mount *image* with an empty cache and list its root file system."""
    mountpoint, cache = work / f"mnt-{uuid.uuid4().hex}", work / f"cache-{uuid.uuid4().hex}"
    mountpoint.mkdir()
    mount = f"{COMMAND} mount -q --driver fuse --cache-dir {cache} --log-file {work}/log {image} {mountpoint}"
    try:
        return _Listed(
            took(lambda: subprocess.run(mount.split(), check=True, env=trusting(work))),
            took(lambda: subprocess.run(["ls", f"{mountpoint}/rootfs"], check=True, stdout=subprocess.DEVNULL)),
        )
    finally:
        subprocess.run([COMMAND, "umount", mountpoint], check=True)
        shutil.rmtree(cache)


def _copied(image: str, work: Path) -> float:
    """Copy *image* with skopeo; return the seconds that took."""
    target = work / f"copy-{uuid.uuid4().hex}"
    command = ["skopeo", "copy", "-q", image, f"oci:{target}"]
    seconds = took(lambda: subprocess.run(command, check=True, env=trusting(work)))
    shutil.rmtree(target)
    return seconds


def main(runs: int = 5, megabits: int = 100, layers: int = 2, times: int = 1) -> int:
    """Print the medians."""
    layout = Layout()
    layout.list(layout.image(_tars(-(-megabits // 100), layers), "gzip"), "1")
    size = sum(map(len, layout.files.values()))
    peers: dict[str, Callable[[str, Path], float]] = {"skopeo copy": _copied}
    if shutil.which("crane"):
        peers["crane export"] = exported
    with work_folder() as work:
        with registry(work / "registry") as server:
            push(layout, server)
        with (
            registry(work / "registry", tls=certificates(work)) as server,
            slow_link(server.host, 50 * times, megabits // times) as host,
        ):
            image = f"docker://{host}/team/app:1"
            found = [(_listed(image, work), [copy(image, work) for copy in peers.values()]) for _ in range(runs)]
    ls = statistics.median(listed.ls for listed, _ in found) / times
    both = statistics.median(sum(listed) for listed, _ in found) / times
    print(f"imgfs: ls rootfs {ls:.2f} s; with the mount {both:.2f} s, {size / both / 1e6:.0f} MB/s of gzip")
    for number, peer in enumerate(peers):
        took = statistics.median(others[number] for _, others in found) / times
        print(f"{peer}: {took:.2f} s, of which these are {ls / took:.2f} and {both / took:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
