"""Layers of millions of members: short in the tests, long in ``scripts/soak``."""

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.builders import BLOCK, END, header, image_config, member
from tests.support.mounts import Bench
from tests.support.processes import until

_AT_ONCE = 10_000
"""Headers that are written at once."""
_NAME = b"f%09d"
_PEAK = re.compile(r"VmHWM:\s+([0-9]+) kB")


@dataclass(frozen=True)
class Members:
    """What a layer of many members came to."""

    first_look: float
    """Seconds of the first look: the layer is indexed for it."""
    listing: float
    """Seconds until all names were listed."""
    peak: int
    """Most memory of the serving process, in bytes."""


def members(imgfs: Bench, count: int, layers: int = 1) -> Members:
    """Mount an image with *count* empty files in one directory, dealt out to *layers*, and list them all."""
    archive = _write_archive(imgfs.folder / "many.tar", count, layers)
    mountpoint = imgfs.mount(archive, "--no-cache", "--tmpdir", imgfs.folder)
    began = time.monotonic()
    assert os.listdir(mountpoint / "rootfs") == ["d"]
    looked = time.monotonic()
    folder = mountpoint / "rootfs" / "d"
    with os.scandir(folder) as entries:
        assert sum(1 for _ in entries) == count
    listed = time.monotonic()
    for number in (0, count // 2, count - 1):
        assert (folder / os.fsdecode(_NAME % number)).stat().st_size == 0
    assert not (folder / os.fsdecode(_NAME % count)).exists()
    status = Path(f"/proc/{imgfs.serving(mountpoint)}/status").read_text()
    peak = int(_PEAK.findall(status)[0]) * 1024
    ending = imgfs.start("umount", mountpoint)  # the kernel has millions of names to forget
    assert (*ending.communicate(timeout=300), ending.returncode) == ("", "", 0)
    until(lambda: not imgfs.processes(), "all processes end")
    return Members(looked - began, listed - looked, peak)


def _write_archive(path: Path, count: int, layers: int) -> Path:
    """Write the image; its diffIDs are not the hashes of its layers."""
    config = image_config([b"%d" % number for number in range(layers)])
    names = [f"{number}.tar" for number in range(layers)]
    manifest = [{"Config": "config.json", "RepoTags": ["many:1"], "Layers": names}]
    with path.open("wb") as file:
        for number, name in enumerate(names):
            numbers = range(number, count, layers)
            file.write(header(name, len(numbers) * BLOCK + len(END)))
            file.writelines(_headers(numbers))
            file.write(END)
        file.write(member("config.json", config) + member("manifest.json", json.dumps(manifest).encode()) + END)
    return path


def _headers(numbers: Sequence[int]) -> Iterator[bytes]:
    """Yield the headers of empty files, some thousands at a time."""
    block = header(b"d/" + _NAME % 0)
    # The checksum is that of a block without a name, and of the bytes of the name.
    before, after = block[100:148], block[156:]
    total = sum(before) + 8 * 0x20 + sum(after)
    for start in range(0, len(numbers), _AT_ONCE):
        names = (b"d/" + _NAME % number for number in numbers[start : start + _AT_ONCE])
        yield b"".join(name.ljust(100, b"\0") + before + b"%06o\0 " % (total + sum(name)) + after for name in names)
