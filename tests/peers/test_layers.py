"""``layers/<n>/`` next to what GNU tar extracts from the same blob."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.peer_images import GNU_SPARSE, TWICE, UPPER, write_peer_image
from tests.peers.whole_trees import Tree, differences, touched, tree_at
from tests.support.builders import Archive
from tests.support.mounts import bench
from tests.support.requirements import ROOT, need


@pytest.fixture(scope="module", name="mountpoint")
def mounted_image() -> Iterator[Path]:
    """Give the image, mounted."""
    need(ROOT, "tar")
    with bench() as imgfs:
        image = write_peer_image(imgfs.folder)
        shutil.rmtree(image.layout)
        yield imgfs.mount(image.archive)


@pytest.fixture(scope="module", name="small")
def mounted_small_image() -> Iterator[Path]:
    """Give an image of layers that engines refuse, mounted."""
    need(ROOT, "tar")
    with bench() as imgfs:
        yield imgfs.mount(Archive(layers=[GNU_SPARSE, TWICE]).write(imgfs.folder / "small.tar"))


def _blob(mountpoint: Path, number: int) -> Path:
    digest: str = json.loads((mountpoint / "manifest.json").read_bytes())["layers"][number]["digest"]
    return mountpoint / "blobs" / digest.replace(":", "/")


def _extracted(blob: Path, folder: Path) -> Tree:
    # It says that times before 1970 are implausible, and else restores a directory's before the last file in it.
    command = ["tar", "--warning=no-timestamp", "--delay-directory-restore", "--numeric-owner"]
    command += ["--xattrs", "--xattrs-include=*", "-xpf", str(blob), "-C", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tree_at(folder)


def _compared(tree: Tree, unlisted: set[bytes]) -> Tree:
    """Return what can be compared: GNU tar gives a directory that nothing lists the time of the extraction."""
    entries = {path: entry._replace(mtime_ns=0) if path in unlisted else entry for path, entry in tree.entries.items()}
    return tree._replace(entries=entries)


def _without_ours(tree: Tree) -> Tree:
    """Return *tree* without what imgfs says of a layer in the extended attributes of its root."""
    root = tree.entries[b"."]
    own = tuple(one for one in root.xattrs if not one[0].startswith("user.oci."))
    assert len(own) < len(root.xattrs)
    return tree._replace(entries=tree.entries | {b".": root._replace(xattrs=own)})


@pytest.mark.parametrize("number", range(len(UPPER) + 1))
def test_a_layer_shows_what_gnu_tar_extracts(mountpoint: Path, number: int) -> None:
    _check(mountpoint, number)


@pytest.mark.parametrize("number", [0, 1], ids=["sparse", "twice"])
def test_so_does_a_layer_that_no_engine_takes(small: Path, number: int) -> None:
    _check(small, number)


def _check(mountpoint: Path, number: int) -> None:
    blob = _blob(mountpoint, number)
    unlisted = {path for path, listed in touched([blob]).items() if not any(listed)}
    target = mountpoint.parent / f"extracted-{number}"
    target.mkdir(mode=0o755)
    try:
        theirs = _compared(_extracted(blob, target), unlisted)
    finally:
        shutil.rmtree(target)
    ours = _compared(_without_ours(tree_at(mountpoint / "layers" / str(number))), unlisted)
    assert differences(ours.entries, theirs.entries) == {}
    assert ours.same == theirs.same
