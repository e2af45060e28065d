"""Copies to the host: attributes, links, holes, what images may try, and what an error leaves."""

import os
import signal
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from fusefs.cli.stopping import ended_by_signals
from fusefs.content.protocol import Bytes, Literal
from fusefs.copying.directories import remove
from fusefs.errors import InvalidImage, NoSpace
from fusefs.mount.privileges import keep_capabilities
from fusefs.tree.node import Attributes, Directory, RegularFile
from tests.conftest import TakeWarnings
from tests.support.changesets import (
    About,
    changeset,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    symlink,
    whiteout,
)
from tests.support.requirements import ROOT, need
from tests.unit.copying.trees import copy, found, known, regular, tree_of

NS = 1_500_000_000_123456789


def test_modes_times_and_attributes_are_those_of_the_image(tmp_path: Path) -> None:
    own = partial(About, uid=os.geteuid(), gid=os.getegid())
    layer = changeset(
        folder("d", own(mode=0o2750, mtime_ns=NS)),
        file("d/f", b"f", own(mode=0o4711, mtime_ns=NS + 1, xattrs={b"user.a": b"\0b"})),
        file("d/locked", b"l", own(mode=0o000, mtime_ns=-5 * 10**9)),
        folder("d/closed", own(mode=0o555, mtime_ns=NS + 2)),
        file("d/closed/in", b"i"),
        symlink("d/link", "/etc/passwd", About(mode=0o777, mtime_ns=NS + 3)),
        fifo("d/pipe", About(mode=0o620, mtime_ns=NS + 4)),
        file("d/odd", b"", About(mtime_ns=10**27)),
    )
    with tree_of(layer) as tree:
        copied = copy(tree, "/d", tmp_path)
    there = {path.name: path.lstat() for path in [tmp_path / "d", *(tmp_path / "d").iterdir()]}
    modes = {name: stat.S_IMODE(status.st_mode) for name, status in there.items()}
    assert modes | {"link": 0} == {
        "d": 0o2750, "f": 0o4711, "locked": 0, "closed": 0o555, "link": 0, "pipe": 0o620, "odd": 0o644
    }  # fmt: skip
    times = {name: status.st_mtime_ns for name, status in there.items() if name != "odd"}
    assert times == {
        "d": NS, "f": NS + 1, "locked": -5 * 10**9, "closed": NS + 2, "link": NS + 3, "pipe": NS + 4
    }  # fmt: skip
    assert os.getxattr(tmp_path / "d" / "f", "user.a") == b"\0b"
    assert (copied.files, copied.directories, copied.links, copied.others, copied.size) == (4, 2, 1, 1, 3)


def test_a_file_whose_owner_cannot_be_set_gets_no_set_user_id(tmp_path: Path) -> None:
    su = RegularFile(Attributes(0o6755, 1 << 40, 0, 0), Literal(b""))  # no user has this number
    copy(known({b"su": su}), "/su", tmp_path)
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o755


def test_hard_links_stay_within_what_is_copied(tmp_path: Path) -> None:
    layers = (
        changeset(file("out", b"x"), folder("d"), hard_link("d/a", "out"), hard_link("d/b", "out")),
        changeset(folder("d"), folder("d/e"), hard_link("d/e/c", "d/a"), symlink("d/l", "x"), hard_link("d/m", "d/l")),
    )
    with tree_of(*layers) as tree:
        copy(tree, "/d", tmp_path / "one")
        copy(tree, "/d/.", tmp_path / "one")  # once more, over itself
    one = tmp_path / "one"
    inodes = {(one / name).lstat().st_ino for name in ("a", "b", "e/c")}
    assert len(inodes) == 1
    assert (one / "a").stat().st_nlink == 3
    assert (one / "l").lstat().st_ino == (one / "m").lstat().st_ino
    assert found(one) == {"a": b"x", "b": b"x", "e": None, "e/c": b"x", "l": "-> x", "m": "-> x"}


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100, 0o300])
def test_a_first_name_in_a_directory_that_is_closed_to_its_owner(tmp_path: Path, mode: int) -> None:
    layer = changeset(folder("d"), folder("d/a", About(mode=mode)), file("d/a/f", b"x"), hard_link("d/b", "d/a/f"))

    def copy_without_capabilities() -> None:
        keep_capabilities(())  # of this thread; root may open any directory otherwise
        copy(tree, "/d", tmp_path)

    with tree_of(layer) as tree, ThreadPoolExecutor(1) as thread:
        thread.submit(copy_without_capabilities).result()
    there = tmp_path / "d"
    assert stat.S_IMODE((there / "a").stat().st_mode) == mode
    assert (there / "b").read_bytes() == b"x"
    (there / "a").chmod(0o700)
    assert (there / "a" / "f").read_bytes() == b"x"
    assert (there / "b").stat().st_nlink == (2 if mode & 0o100 else 1)


def special(path: Path, kind: str) -> None:
    """Make a file that a copy does not replace."""
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path))
        case _:
            need(ROOT)
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("name", ["d/f", "d/g", "d/l", "d/p"])
def test_a_copy_replaces_no_device(tmp_path: Path, take_warnings: TakeWarnings, name: str, kind: str) -> None:
    layer = changeset(folder("d"), file("d/f", b"f"), hard_link("d/g", "d/f"), symlink("d/l", "x"), fifo("d/p"))
    (tmp_path / "d").mkdir()
    special(tmp_path / name, kind)
    before = (tmp_path / name).lstat()
    with tree_of(layer) as tree, pytest.raises(NoSpace) as caught:
        copy(tree, "/d", tmp_path)
    assert str(caught.value) == f"cannot write {tmp_path}/{name}: it exists and is a {kind}"
    assert take_warnings() == [f"the copy in {tmp_path}/d is incomplete"]
    assert (tmp_path / name).lstat() == before


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_destination_that_is_a_device_is_refused(tmp_path: Path, kind: str, *, is_link: bool) -> None:
    special(tmp_path / "special", kind)
    (tmp_path / "link").symlink_to("special")
    to = tmp_path / ("link" if is_link else "special")
    before = (tmp_path / "special").lstat()
    with tree_of(changeset(file("f", b"f"))) as tree, pytest.raises(NoSpace) as caught:
        copy(tree, "/f", to)
    assert str(caught.value) == f"cannot write {to}: it is a {kind}; - writes a tar to standard output"
    assert (tmp_path / "special").lstat() == before


def test_holes_stay_holes(tmp_path: Path) -> None:
    layer = changeset(gnu_sparse("s", 1 << 40, [(1 << 30, b"a" * 4096)]), gnu_sparse("empty", 1 << 40, [(0, b"")]))
    with tree_of(layer) as tree:
        copied = copy(tree, "/", tmp_path / "new")
    assert copied.size == 4096
    status = (tmp_path / "new" / "s").stat()
    assert (status.st_size, status.st_blocks <= 64) == (1 << 40, True)
    with open(tmp_path / "new" / "s", "rb") as sparse:
        assert os.pread(sparse.fileno(), 4098, (1 << 30) - 1) == b"\0" + b"a" * 4096 + b"\0"


def test_a_second_copy_merges_directories_and_replaces_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "mine").write_bytes(b"mine")
    (tmp_path / "d" / "f").symlink_to("../victim")
    (tmp_path / "d" / "l").write_bytes(b"no link")
    (tmp_path / "victim").write_bytes(b"safe")
    with tree_of(changeset(folder("d"), file("d/f", b"new"), symlink("d/l", "x"))) as tree:
        copy(tree, "/d", tmp_path)
    assert found(tmp_path) == {"d": None, "d/f": b"new", "d/l": "-> x", "d/mine": b"mine", "victim": b"safe"}
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755


def test_the_directory_that_is_only_the_place_keeps_its_attributes(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    with tree_of(changeset(folder("d", About(mode=0o777, uid=33)), file("d/f", b"f"))) as tree:
        copy(tree, "/d/.", place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.stat().st_uid == os.geteuid()


def test_a_link_of_the_image_leads_nothing_out_of_the_destination(tmp_path: Path) -> None:
    # As the image has it, a name is either a link or a directory.  Two layers at two times make both.
    outside = tmp_path / "outside"
    outside.mkdir()
    with tree_of(changeset(symlink("d", str(outside)))) as tree:
        copy(tree, "/.", tmp_path / "to")
    with tree_of(changeset(folder("d"), file("d/f", b"f"))) as tree, pytest.raises(NoSpace, match="not a directory"):
        copy(tree, "/.", tmp_path / "to")
    assert found(outside) == {}
    with tree_of(changeset(symlink("e", str(outside)), file("e/f", b"f"), symlink("f", "e/f"))) as tree:
        copy(tree, "/", tmp_path / "again")  # a file behind a link is behind it in the image, too
    assert found(outside) == {}
    assert (tmp_path / "again" / str(outside)[1:] / "f").read_bytes() == b"f"


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"../x", b"/x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes) -> None:
    for tree in (known({name: regular(b"x")}), known({b"d": known({name: regular(b"x")}).node(0)})):
        with pytest.raises(InvalidImage, match="has the name"):
            copy(tree, "/", tmp_path / "new")
        assert found(tmp_path) == {}


class Interrupting(Literal):
    """A content whose reading is interrupted."""

    def read_at(self, offset: int, size: int) -> Bytes:  # noqa: ARG002
        """Raise the interrupt."""
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_of_a_new_copy(tmp_path: Path) -> None:
    closed = Directory(Attributes(0o000, 0, 0, 0), {b"in": regular(b"x")})
    tree = known({b"a": closed, b"b": regular(b"y"), b"c": regular(Interrupting(b"x"))})
    with pytest.raises(KeyboardInterrupt):
        copy(tree, "/", tmp_path / "new")
    assert found(tmp_path) == {}


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, take_warnings: TakeWarnings) -> None:
    (tmp_path / "a").write_bytes(b"old")
    tree = known({b"0": regular(b"0"), b"a": regular(Interrupting(b"x"))})
    with pytest.raises(KeyboardInterrupt):
        copy(tree, "/a", tmp_path)
    assert found(tmp_path) == {"a": b"old"}
    with pytest.raises(KeyboardInterrupt):
        copy(tree, "/", tmp_path)
    assert found(tmp_path) == {"0": b"0", "a": b"old"}
    assert take_warnings() == [f"the copy in {tmp_path} is incomplete"]


class Terminating(Literal):
    """A content at whose reading the process is told to end."""

    def read_at(self, offset: int, size: int) -> Bytes:
        """Send the signal, and return the bytes."""
        os.kill(os.getpid(), signal.SIGTERM)
        return super().read_at(offset, size)


def test_a_signal_that_ends_the_command_leaves_nothing_of_a_new_copy(tmp_path: Path) -> None:
    tree = known({b"a": regular(b"a"), b"b": regular(Terminating(b"x"))})
    with ended_by_signals(), pytest.raises(SystemExit) as caught:
        copy(tree, "/", tmp_path / "new")
    assert caught.value.code == 128 + signal.SIGTERM
    assert found(tmp_path) == {}


def test_paths_may_be_longer_and_deeper_than_the_kernel_takes_at_once(tmp_path: Path) -> None:
    depth = 1500
    deep = b"directory/" * depth
    with tree_of(changeset(file(deep + b"f", b"deep"), hard_link(deep + b"g", deep + b"f"))) as tree:
        copied = copy(tree, "/", tmp_path / "new")
    assert (copied.directories, copied.files) == (depth + 1, 2)
    before = os.getcwd()
    try:
        os.chdir(tmp_path / "new")
        for _ in range(depth):
            os.chdir("directory")
        assert Path("f").read_bytes() == b"deep"
        assert Path("g").stat().st_nlink == 2
    finally:
        os.chdir(before)
    parent = os.open(tmp_path, os.O_RDONLY)
    remove(b"new", parent)  # rm(1) could, shutil.rmtree could not
    os.close(parent)
    assert found(tmp_path) == {}


def test_whiteouts_of_a_layer_are_files(tmp_path: Path) -> None:
    with tree_of(changeset(file("d/f", b"f")), changeset(whiteout("d/f"))) as tree:
        copy(tree, "/", tmp_path / "new")
    assert found(tmp_path / "new") == {"d": None}


def test_devices_are_made_or_counted(tmp_path: Path) -> None:
    with tree_of(changeset(device("null", "c", 1, 3), hard_link("zero", "null"), file("f"))) as tree:
        copied = copy(tree, "/", tmp_path / "new")
    if copied.skipped:
        assert (copied.skipped, copied.why_skipped) == (2, "/null: Operation not permitted")
        assert found(tmp_path / "new") == {"f": b""}
    else:
        assert (tmp_path / "new" / "null").stat().st_rdev == os.makedev(1, 3)
        assert (tmp_path / "new" / "zero").stat().st_nlink == 2
