"""Random stacks of layers as EROFS metadata: read by the tests' own reader, mounted by the kernel, and fsck'ed."""

import os
import random
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from fusefs.erofs.limits import Unfit
from fusefs.layers.tree import LayerFiles
from fusefs.tree.node import Directory, RegularFile, Symlink
from tests.fuzz.oracles import index
from tests.fuzz.random_archives import HONEST, LYING, archive, damaged
from tests.support.erofs_views import Place, check, kept_xattrs, places, stack_view
from tests.support.kernel_mounts import kernel_mount

_HEAD = 1 << 16
"""Bytes of a file that are compared in a mount, at its beginning."""


@dataclass
class Compared:
    """What a drill came to."""

    images: Counter[str] = field(default_factory=Counter)
    """How many images were: written, mounted, checked by fsck, refused by imgfs, not fit for EROFS."""
    paths: int = 0
    """Paths that were compared."""


def compare(images: int, seed: int, *, every: int = 100, fsck: Callable[[Directory], None] | None = None) -> Compared:
    """Compare so many images of random layers, from *seed* on; mount one of *every* so many, and check it with *fsck*.

    An image is a file system of its layers, each by itself, and of all of them merged.
    """
    compared = Compared()
    for number in range(images):
        rng = random.Random(seed + number)
        try:
            _compare(rng, compared, fsck if number % every == 0 else None, mount=number % every == 0)
        except BaseException:
            print(f"seed {seed + number} does it")
            raise
    return compared


def _compare(rng: random.Random, compared: Compared, fsck: Callable[[Directory], None] | None, *, mount: bool) -> None:
    data = [archive(rng, rng.choice((HONEST, LYING))) for _ in range(rng.randint(1, 5))]
    data = [damaged(layer, rng) if rng.randint(0, 3) == 0 else layer for layer in data]
    descriptors: list[int] = []
    try:
        files = [found for found in (index(layer, descriptors) for layer in data) if found]
        if files:
            _compare_stack(files, compared, fsck, transform_symlinks=rng.randint(0, 3) == 0, mount=mount)
        else:
            compared.images["refused"] += 1
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _compare_stack(
    files: list[LayerFiles],
    compared: Compared,
    fsck: Callable[[Directory], None] | None,
    *,
    transform_symlinks: bool,
    mount: bool,
) -> None:
    view = stack_view(files, transform_symlinks=transform_symlinks)
    try:
        compared.paths += len(check(view).erofs.shown)
    except Unfit:
        compared.images["unfit"] += 1
        return
    compared.images["written"] += 1
    if mount:
        _check_mounted(view)
        compared.images["mounted"] += 1
    if fsck:
        fsck(view)
        compared.images["fsck"] += 1


def _check_mounted(view: Directory) -> None:
    """Mount *view* and compare the mount with its trees."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        mountpoint = Path(folder, "mnt")
        mountpoint.mkdir()
        with kernel_mount(view, mountpoint):
            expected = places(view)
            for path, place in expected.items():
                _check_path(os.path.join(os.fsencode(mountpoint), path), place)
            found = {b""}
            for where, folders, names in os.walk(os.fsencode(mountpoint)):
                found |= {os.path.relpath(os.path.join(where, name), os.fsencode(mountpoint))
                          for name in folders + names}  # fmt: skip
            assert found == expected.keys()


def _check_path(path: bytes, place: Place) -> None:
    shown, said = os.lstat(path), place.stat
    found = shown.st_mode, shown.st_uid, shown.st_gid, shown.st_mtime_ns, shown.st_nlink, shown.st_rdev
    assert found == (said.mode, said.uid, said.gid, said.mtime_ns, said.nlink, said.rdev), path
    node = place.node
    if isinstance(node, RegularFile):
        assert shown.st_size == said.size, path
        with open(path, "rb", buffering=0) as file:
            assert file.read(_HEAD) == bytes(node.content.read_at(0, _HEAD)), path
    elif isinstance(node, Symlink):
        assert os.readlink(path) == node.target, path
    if not stat.S_ISLNK(said.mode):
        xattrs = {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}
        assert xattrs == kept_xattrs(dict(place.tree.xattrs(place.number))), path
