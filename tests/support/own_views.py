"""Views that no image has, mounted through the real adapter.

``python -m tests.support.own_views VIEW MOUNTPOINT TMPDIR`` mounts one.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fusefs.image.lazy_layers import Layers
from fusefs.mount.mountpoint import claim_mountpoint
from fusefs.mount.session import MountOptions, serve
from fusefs.mount.status import BytesRead
from fusefs.mount.view import ViewOptions, image_view
from fusefs.tree.node import Attributes, Directory, KnownTree, LazyDirectory, Tree
from fusefs.tree.overrides import Overrides
from tests.support.mounts import Bench
from tests.support.remote_content import remote_image

_REPOSITORY = Path(__file__).parents[2]
_ATTRIBUTES = Attributes(0o755, 0, 0, 0)


def remote_view(tmpdir: str) -> Directory:
    """Return the view of an image that lies in no local file."""
    image = remote_image()
    return image_view(image, Layers(image, tmpdir), ViewOptions(uid=0, gid=0))


def nested_view(tmpdir: str) -> Directory:
    """Return a view as of many images: ``engine``, an image in it, and that image's layers are lazy directories."""

    def image() -> Tree:
        return KnownTree(remote_view(tmpdir))

    def engine() -> Tree:
        return KnownTree(Directory(_ATTRIBUTES, {name: LazyDirectory(_ATTRIBUTES, image) for name in (b"a", b"b")}))

    return Directory(_ATTRIBUTES, {b"engine": LazyDirectory(_ATTRIBUTES, engine), b"empty": Directory(_ATTRIBUTES)})


VIEWS: dict[str, Callable[[str], Directory]] = {"remote": remote_view, "nested": nested_view}


@contextmanager
def mounted(imgfs: Bench, view: str) -> Iterator[Path]:
    """Mount one of the `VIEWS` for as long as the block takes."""
    mountpoint = imgfs.mountpoint()
    bench = replace(imgfs, command=(sys.executable, "-m", "tests.support.own_views"))
    process = bench.start(view, mountpoint, imgfs.folder, PYTHONPATH=_REPOSITORY)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield mountpoint
    assert imgfs.run("umount", mountpoint).status == 0
    assert process.communicate() == ("", "")
    assert process.returncode == 0


def main(view: str, mountpoint: str, tmpdir: str) -> None:
    """Mount *view*; "ready" on standard output says that the mount is usable."""
    options = MountOptions(view, (), Overrides(), BytesRead())
    serve(VIEWS[view](tmpdir), claim_mountpoint(mountpoint, {}), options, lambda: print("ready", flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
