"""Copies as a tar: what tar(1), Python and imgfs itself read of it is what the image has."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from fusefs.copying.source import source_at
from fusefs.copying.tarball import Tarball
from fusefs.errors import InvalidImage
from fusefs.layers.tree import LayerTree
from fusefs.tree.node import Attributes, Special, Tree
from tests.support.changesets import (
    About,
    changeset,
    device,
    everything,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    indexed,
    symlink,
)
from tests.unit.copying.trees import known, regular, tree_of

LONG = "n" * 200
LAYER = changeset(
    folder("d", About(mode=0o1750, uid=1, gid=2, mtime_ns=3 * 10**9)),
    file("d/f", b"f" * 600, About(mode=0o4755, uid=3 << 20, gid=5, mtime_ns=1_500_000_000_123456789)),
    file("d/old", b"", About(mtime_ns=-1_500_000_000)),
    file("d/attributes", b"x", About(xattrs={b"user.a": b"\0\n=\xff", b"security.capability": b"c"})),
    file(b"d/\xff\x1b", b"odd"),
    file(f"d/{LONG}", b"long"),
    hard_link("d/again", f"d/{LONG}"),
    symlink("d/link", LONG),
    symlink("d/out", "/etc"),
    device("d/c", "c", 1, 3, About(mode=0o666)),
    device("d/b", "b", 259, 70000),
    fifo("d/p"),
    gnu_sparse("d/s", 1 << 40, [(0, b"a" * 512), (1 << 30, b"b" * 1000)]),
    gnu_sparse("d/hole", 1 << 20, [(0, b"")]),
    folder("d/e"),
    file("d/e/g", b"g"),
)


def tar_of(tree: Tree, path: str) -> bytes:
    """Return what is written of *path*."""
    return b"".join(map(bytes, Tarball(source_at(tree, path.encode(), "image")).parts()))


def names_in(data: bytes) -> list[str]:
    """Return the names in a tar."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def test_an_index_of_the_tar_shows_what_the_image_shows() -> None:
    with tree_of(LAYER) as tree, indexed(tar_of(tree, "/")) as copied:
        assert copied.warning is None
        assert everything(LayerTree(copied.files, transform_symlinks=False)) == everything(tree)


def test_names_begin_with_that_of_the_source() -> None:
    with tree_of(LAYER) as tree:
        names = {path: names_in(tar_of(tree, path)) for path in ("/d/e", "/d/e/.")}
        assert names == {"/d/e": ["e", "e/g"], "/d/e/.": [".", "./g"]}
        assert names_in(tar_of(tree, "/d/f")) == ["f"]


def test_tar_unpacks_it(tmp_path: Path) -> None:
    with tree_of(LAYER) as tree:
        data = tar_of(tree, "/d")
    subprocess.run(
        ["tar", "-xf", "-", "--exclude=c", "--exclude=b", "--no-same-owner"], input=data, cwd=tmp_path, check=True
    )
    sparse = tmp_path / "d" / "s"
    assert (sparse.stat().st_size, sparse.stat().st_blocks <= 64) == (1 << 40, True)
    with open(sparse, "rb") as opened:
        opened.seek(1 << 30)
        assert opened.read(1001) == b"b" * 1000 + b"\0"
    assert (tmp_path / "d" / "again").stat().st_ino == (tmp_path / "d" / LONG).stat().st_ino
    assert (tmp_path / "d" / "f").stat().st_mtime_ns == 1_500_000_000_123456789


def test_sockets_are_counted_and_left_out() -> None:
    socket = Special(Attributes(0o600, 0, 0, 0, nlink=2), 0o140000, 0)
    tarball = Tarball(source_at(known({b"a": socket, b"b": regular(b"b")}), b"/", "image"))
    data = b"".join(map(bytes, tarball.parts()))
    assert names_in(data) == [".", "./b"]
    assert (tarball.copied.skipped, tarball.copied.why_skipped) == (1, "/a: a tar cannot have sockets")


def test_a_name_that_leads_elsewhere_is_refused() -> None:
    with pytest.raises(InvalidImage):
        tar_of(known({b"../x": regular(b"x")}), "/")
