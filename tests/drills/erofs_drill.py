"""Random stacks of layers as EROFS metadata: read by the tests' own reader, mounted by the kernel, and fsck'ed."""

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fusefs.erofs.limits import Unfit
from fusefs.layers.tree import LayerFiles
from fusefs.tree.node import Directory
from tests.fuzz.oracles import index
from tests.fuzz.random_archives import HONEST, LYING, archive, damaged
from tests.support.erofs_views import check, stack_view
from tests.support.kernel_mounts import check_mounted


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
        check_mounted(view)
        compared.images["mounted"] += 1
    if fsck:
        fsck(view)
        compared.images["fsck"] += 1
