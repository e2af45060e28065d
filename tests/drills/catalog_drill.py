"""Images of an engine come, go and move while programs look into them; memory and descriptors stay flat."""

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.builders import Archive
from tests.support.changesets import changeset, file
from tests.support.many_images import ManyImages, many_images
from tests.support.mounts import Bench
from tests.support.processes import until

_NAMES = 40
_GONE = b"gone"
_SEEN = 4.0
"""Seconds after which no program may read an image that its name had before: two, and what a busy machine adds."""


class Comings(NamedTuple):
    """What a drill came to."""

    changes: int
    reads: int
    missing: int
    """Reads of names that were not there."""
    memory: tuple[int, int]
    """Resident kilobytes after a fifth of the time, and at the end."""
    descriptors: tuple[int, int]


def _image(content: str) -> Archive:
    return Archive(layers=(changeset(file("etc/name", content.encode()), file(f"etc/{content}", b"")),))


class _Engine:
    """What the engine has, and had."""

    def __init__(self, rng: random.Random) -> None:
        self.images = ManyImages()
        self._rng = rng
        self._version = 0
        self._had: dict[str, list[tuple[float, bytes | None]]] = {}

    def change(self) -> None:
        """Add, move or remove a name."""
        name = f"team/app{self._rng.randrange(_NAMES)}:1"
        if name in self.images.names and self._rng.random() < 0.4:
            self.images.names = {other: image for other, image in self.images.names.items() if other != name}
            content = None
        else:
            self._version += 1
            content = f"{name.replace('/', '-')}-{self._version}".encode()
            self.images.names = self.images.names | {name: _image(content.decode())}
        self._had.setdefault(name, [(0.0, None)]).append((time.monotonic(), content))

    def allowed(self, name: str, before: float) -> set[bytes | None]:
        """Return what a read of *name* that began at *before* may have found."""
        had = self._had.get(name, [(0.0, None)])
        last = max(index for index, (since, _) in enumerate(had) if since <= before - _SEEN or index == 0)
        return {content for _, content in had[last:]}


def come_and_go(imgfs: Bench, seconds: float, seed: int) -> Comings:
    """Change images and read them for so many *seconds*."""
    rng = random.Random(seed)
    engine = _Engine(rng)
    for _ in range(2 * _NAMES):
        engine.change()
    with many_images(imgfs.folder / "engine.sock", engine.images) as server:
        mountpoint = imgfs.mountpoint()
        options: list[str | Path] = [
            "-H",
            server.host,
            "--idle",
            "0.5",
            "--cache-size",
            "200k",
            "--log-file",
            imgfs.log,
        ]
        done = imgfs.run("mount", "--all", *options, mountpoint)
        assert done.status == 0, done.err
        try:
            return _used(imgfs, engine, mountpoint, rng, seconds)
        finally:
            imgfs.run("umount", "--lazy", mountpoint)
            until(lambda: not imgfs.processes(), "the mount ends")


def _used(imgfs: Bench, engine: _Engine, mountpoint: Path, rng: random.Random, seconds: float) -> Comings:
    serving = imgfs.serving(mountpoint)
    begin = time.monotonic()
    held: list[tuple[int, bytes]] = []
    changes = reads = missing = 0
    early: tuple[int, int] | None = None
    while (now := time.monotonic()) < begin + seconds:
        if early is None and now > begin + seconds / 5:
            early = _size(serving)
        engine.change()
        changes += 1
        for _ in range(3):
            name = f"team/app{rng.randrange(_NAMES)}:1"
            path = mountpoint / name.replace(":", "@") / "rootfs" / "etc" / "name"
            before = time.monotonic()
            found = _read(path, held, rng)
            reads += 1
            missing += found is None
            allowed = engine.allowed(name, before)
            if found == _GONE:  # the engine has another image by now, or none
                assert len(allowed) > 1, (name, allowed)
            else:
                assert found in allowed, (name, found, allowed)
        while len(held) > 20:
            descriptor, content = held.pop(rng.randrange(len(held)))
            assert os.pread(descriptor, 1000, 0) == content
            os.close(descriptor)
    for descriptor, content in held:
        assert os.pread(descriptor, 1000, 0) == content
        os.close(descriptor)
    assert early is not None
    late = _size(serving)
    return Comings(changes, reads, missing, (early[0], late[0]), (early[1], late[1]))


def _read(path: Path, held: list[tuple[int, bytes]], rng: random.Random) -> bytes | None:
    """Return the bytes of *path*, None if it is not there; keep it open now and then."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # the engine has removed the image before it was saved
        return _GONE
    content = os.read(descriptor, 1000)
    if rng.random() < 0.2:
        held.append((descriptor, content))
    else:
        os.close(descriptor)
    return content


def _size(process: int) -> tuple[int, int]:
    """Return resident kilobytes and open descriptors of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return resident, len(os.listdir(f"/proc/{process}/fd"))
