"""What the cache has on disk after many tags of one app were looked into, next to the distinct bytes of their layers.

    scripts/soak tags [TAGS]

All tags have the same base, and each has a layer of its own: text, which gzip compresses to 40 %.
"""

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.drills.first_byte import work_folder
from tests.support.builders import layer
from tests.support.fault_proxy import Proxy, fault_proxy
from tests.support.layouts import Layout
from tests.support.mounts import COMMAND
from tests.support.registries import push, registry


class Costs(NamedTuple):
    """Bytes, of all tags together."""

    sent: int
    """What the registry sent."""
    blobs: int
    """The distinct layers as the registry has them."""
    on_disk: int
    """The blocks of all files and folders in the cache."""
    stored: int
    """The distinct layers and their plain tars, both of which are cached."""

    def __str__(self) -> str:
        """Return both ratios."""
        return (
            f"sent {self.sent / self.blobs:.3f} of the distinct layers ({self.blobs:,} bytes); on disk "
            f"{self.on_disk / self.stored:.3f} of these and their plain tars ({self.stored:,} bytes)"
        )


def measure(work: Path, tags: int, base_size: int, app_size: int) -> Costs:
    """Look into *tags* images, each for the first time; a layer of its own has *app_size* plain bytes."""
    draw = random.Random(1)
    words = [draw.randbytes(8).hex().encode() for _ in range(4000)]

    def text(size: int) -> bytes:
        return b" ".join(draw.choices(words, k=size // 17))

    base = layer({f"usr/{number}": text(base_size // 20) for number in range(20)})
    apps = [layer({f"app/{tag}": text(app_size)}) for tag in range(tags)]
    layers = [base, *apps]
    cache = work / "cache"
    with registry(work / "registry") as server, fault_proxy(server.host) as proxy:
        for tag, app in enumerate(apps):
            layout = Layout()
            push(layout.list(layout.image([base, app], "gzip"), "1"), server, f"bench/app:{tag}")
        for tag in range(tags):
            _look(proxy, work, cache, tag)
        sent = proxy.sent
    blobs = sum(len(gzip.compress(data)) for data in layers)
    on_disk = sum(
        os.lstat(Path(folder, name)).st_blocks * 512
        for folder, folders, files in os.walk(cache)
        for name in (*folders, *files)
    )
    return Costs(sent, blobs, on_disk, blobs + sum(map(len, layers)))


def _look(proxy: Proxy, work: Path, cache: Path, tag: int) -> None:
    mountpoint = work / f"mnt-{tag}"
    mountpoint.mkdir()
    options = ("-q", "--driver", "fuse", "--cache-dir", str(cache), "--log-file", str(work / "log"))
    subprocess.run([COMMAND, "mount", *options, proxy.image(f"bench/app:{tag}"), mountpoint], check=True)
    try:
        assert [path.name for path in (mountpoint / "rootfs" / "app").iterdir()] == [str(tag)]
    finally:
        subprocess.run([COMMAND, "umount", mountpoint], check=True)


def main(tags: int = 100) -> int:
    """Print what was sent and what is on disk."""
    with work_folder() as work:
        print(measure(work, tags, base_size=56_000_000, app_size=2_500_000))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
