"""layers/ and rootfs/ of a mounted image, seen through the kernel."""

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import planted
from tests.support.builders import CREATED_NS, Archive, compressed, image_config
from tests.support.changesets import (
    About,
    changeset,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    pax_sparse,
    symlink,
    whiteout,
)
from tests.support.mounts import Bench, Finished, bench, mounted_below, tree, without_figures

NS = 1_500_000_000_123456789
OWNER = About(mode=0o640, uid=4_000_000_000, gid=4_294_967_294, mtime_ns=NS)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep, as setcap writes it."""
ODD = b"\xff\xfe not UTF-8\n\x01"
RUNS = [(0, b"a" * 1000), (1 << 20, b"b" * 5000), (5 << 20, b"c")]
SPARSE_SIZE = 8 << 20

BASE = changeset(
    folder("./", About(mode=0o1777, uid=1, gid=2, mtime_ns=NS)),
    folder("etc", About(mode=0o750, mtime_ns=NS)),
    file("etc/motd", b"old\n"),
    file("etc/gone", b"x"),
    file("owned", b"12345", OWNER),
    file("suid", b"#!\n", About(mode=0o6755)),
    file("sticky", b"", About(mode=0o1644)),
    file("a", b"linked"),
    hard_link("etc/b", "a"),
    hard_link("etc/c", "a"),
    symlink("absolute", "/etc/motd"),
    symlink("etc/up", "../owned"),
    symlink("dangling", "nowhere"),
    device("null", "c", 1, 3, About(mode=0o666)),
    device("disk", "b", 4095, 1_048_575, About(mode=0o600)),
    fifo("pipe", About(mode=0o622)),
    file("capable", b"x", About(mode=0o755, xattrs={b"security.capability": CAPABILITY, b"user.a": b"\xff\0"})),
    file("libarchive", b"x", About(libarchive={b"user.b": b"\0\1\2"})),
    file(ODD, b"odd"),
    file(b"n" * 255, b"long"),
    gnu_sparse("sparse-gnu", SPARSE_SIZE, RUNS),
    *(pax_sparse(version, f"sparse-{version}", SPARSE_SIZE, RUNS) for version in ("0.0", "0.1", "1.0")),
)
UPPER = changeset(file("etc/motd", b"new\n"), whiteout("etc/gone"), folder("var/empty"))
LAYERS = (BASE, UPPER, BASE)
ARCHIVE = Archive(layers=LAYERS)
UNLOOKED = ("drwxr-xr-x", 0, 0, CREATED_NS)


def _said(path: Path) -> tuple[str, int, int, int]:
    found = path.lstat()
    return stat.filemode(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns


@pytest.fixture(scope="module", name="image", params=[None, "gzip", "zstd", "xz", "bzip2"])
def mounted_image(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An image of two layers, stored plain and in every compression."""
    layers = (BASE, UPPER)
    with bench() as made:
        stored = [compressed(data, request.param) for data in layers]
        archive = Archive(layers=stored, config=image_config(layers))
        yield made.mount(archive.write(made.folder / "image.tar"))


@pytest.fixture(name="base")
def base_layer(image: Path) -> Path:
    """The base layer's tree."""
    return image / "layers" / "0"


@pytest.fixture(name="root", params=["layers/0", "rootfs"])
def either_tree(image: Path, request: pytest.FixtureRequest) -> Path:
    """A tree in which the base layer's files are."""
    return image / str(request.param)


def test_listing_the_mount_and_layers_indexes_nothing(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"))
    for place in (".", "layers", "blobs"):
        subprocess.run(["ls", "-la", mountpoint / place], stdout=subprocess.DEVNULL, check=True)
    for place in ("rootfs", "layers/0", "layers/1", "layers/2"):
        assert _said(mountpoint / place) == UNLOOKED
    assert sorted(os.listdir(mountpoint / "layers")) == ["0", "1", "2"]
    assert imgfs.made_files(mountpoint) == []


def _noting(imgfs: Bench) -> Path:
    """Let the command note which layers it indexes, and return where."""
    notes = imgfs.folder / "notes"
    imgfs.command = (sys.executable, planted.__file__, f"note={notes}")
    return notes


def test_a_look_into_a_layer_indexes_that_layer_and_then_it_has_its_own_attributes(imgfs: Bench) -> None:
    notes = _noting(imgfs)
    mountpoint = imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"), "--no-cache")
    assert _said(mountpoint / "layers" / "0") == UNLOOKED
    assert "owned" in os.listdir(mountpoint / "layers" / "0")
    assert _said(mountpoint / "layers" / "0") == ("drwxrwxrwt", 1, 2, NS)
    assert _said(mountpoint / "layers" / "1") == UNLOOKED
    # The third is the first again: looked at for itself, and indexed no second time.
    assert _said(mountpoint / "layers" / "2") == UNLOOKED
    assert (mountpoint / "layers" / "2" / "owned").read_bytes() == b"12345"
    assert _said(mountpoint / "layers" / "2") == ("drwxrwxrwt", 1, 2, NS)
    assert notes.read_text() == "index\n"


def test_without_a_temporary_directory_plain_layers_are_indexed_in_memory(imgfs: Bench) -> None:
    tmpdir = imgfs.mountpoint("tmpdir")
    archive = Archive(
        layers=[BASE, compressed(UPPER, "gzip")], layer_names=["1.tar", "2.tar"], config=image_config([BASE, UPPER])
    )
    mountpoint = imgfs.mount(archive.write(imgfs.folder / "image.tar"), "--no-cache", "--tmpdir", tmpdir)
    tmpdir.rmdir()
    assert (mountpoint / "layers" / "0" / "etc" / "motd").read_bytes() == b"old\n"
    imgfs.log_is_quiet = False
    with pytest.raises(OSError, match="No space left on device"):
        os.listdir(mountpoint / "layers" / "1")
    (said,) = imgfs.log.read_text().splitlines()
    assert f"ERROR: cannot write in {tmpdir}: No such file or directory" in said
    tmpdir.mkdir()
    assert os.listdir(mountpoint / "layers" / "1")


def test_a_look_into_rootfs_indexes_all_layers_once(imgfs: Bench) -> None:
    notes = _noting(imgfs)
    mountpoint = imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"), "--no-cache")
    assert _said(mountpoint / "rootfs") == UNLOOKED
    assert (mountpoint / "rootfs" / "etc" / "up").read_bytes() == b"12345"
    assert _said(mountpoint / "rootfs") == ("drwxrwxrwt", 1, 2, NS)
    assert notes.read_text() == "index\n" * 2
    for number in range(3):
        os.listdir(mountpoint / "layers" / str(number))
    assert notes.read_text() == "index\n" * 2


def test_rootfs_is_the_layers_on_each_other_and_layers_shows_the_whiteouts(image: Path) -> None:
    assert (image / "rootfs" / "etc" / "motd").read_bytes() == b"new\n"
    assert sorted(os.listdir(image / "rootfs" / "etc")) == ["b", "c", "motd", "up"]
    assert sorted(os.listdir(image / "layers" / "1" / "etc")) == [".wh.gone", "motd"]
    assert (image / "layers" / "0" / "etc" / "motd").read_bytes() == b"old\n"
    assert _said(image / "rootfs" / "etc") == ("drwxr-x---", 0, 0, NS)
    assert os.listdir(image / "rootfs" / "var" / "empty") == []
    assert not (image / "rootfs" / "etc" / "gone").exists()
    assert sorted(os.listdir(image / "rootfs")) == sorted([*os.listdir(image / "layers" / "0"), "var"])


def test_owners_modes_and_times_are_those_of_the_tar(root: Path) -> None:
    assert _said(root / "owned") == ("-rw-r-----", 4_000_000_000, 4_294_967_294, NS)
    found = (root / "owned").stat()
    assert (found.st_atime_ns, found.st_ctime_ns, found.st_size, found.st_blocks) == (NS, NS, 5, 1)
    modes = {name: stat.filemode((root / name).stat().st_mode) for name in ("suid", "sticky", "pipe", "null", "disk")}
    assert modes == {
        "suid": "-rwsr-sr-x", "sticky": "-rw-r--r-T", "pipe": "prw--w--w-", "null": "crw-rw-rw-", "disk": "brw-------"
    }  # fmt: skip


def test_hard_links_are_one_inode_with_all_its_names(root: Path) -> None:
    found = [os.stat(root / name) for name in ("a", "etc/b", "etc/c")]
    assert found[0] == found[1] == found[2]
    assert found[0].st_nlink == 3
    assert (root / "etc" / "c").read_bytes() == b"linked"
    assert (root / "owned").stat().st_nlink == 1
    counted = subprocess.run(["find", root, "-samefile", root / "a"], capture_output=True, text=True, check=True)
    assert sorted(counted.stdout.split()) == sorted(str(root / name) for name in ("a", "etc/b", "etc/c"))


def test_devices_have_their_numbers_and_cannot_be_opened(root: Path) -> None:
    assert [(root / name).stat().st_rdev for name in ("null", "disk")] == [
        os.makedev(1, 3),
        os.makedev(4095, 1_048_575),
    ]
    with pytest.raises(PermissionError):  # nodev
        (root / "null").read_bytes()


def test_symbolic_links_are_verbatim(root: Path) -> None:
    targets = {name: os.readlink(root / name) for name in ("absolute", "etc/up", "dangling")}
    assert targets == {"absolute": "/etc/motd", "etc/up": "../owned", "dangling": "nowhere"}
    assert (root / "absolute").lstat().st_size == len("/etc/motd")


def test_extended_attributes_are_those_of_the_tar(root: Path) -> None:
    assert sorted(os.listxattr(root / "capable")) == ["security.capability", "user.a"]
    assert os.getxattr(root / "capable", "security.capability") == CAPABILITY
    assert os.getxattr(root / "capable", "user.a") == b"\xff\0"
    assert os.listxattr(root / "libarchive") == []  # engines do not know libarchive's form
    assert os.listxattr(root / "owned") == os.listxattr(root / "etc") == []
    for name in ("user.b", "security.other", "security.capability"):
        with pytest.raises(OSError, match=r".") as raised:
            os.getxattr(root / "owned", name)
        assert raised.value.errno == errno.ENODATA


def test_names_may_be_any_bytes(root: Path) -> None:
    names = os.listdir(os.fsencode(root))
    assert {ODD, b"n" * 255} <= set(names)
    assert Path(os.fsdecode(os.path.join(os.fsencode(root), ODD))).read_bytes() == b"odd"
    assert (root / ("n" * 255)).read_bytes() == b"long"


@pytest.mark.parametrize("name", ["sparse-gnu", "sparse-0.0", "sparse-0.1", "sparse-1.0"])
def test_sparse_files_have_their_holes(root: Path, tmp_path: Path, name: str) -> None:
    expected = bytearray(SPARSE_SIZE)
    for offset, data in RUNS:
        expected[offset : offset + len(data)] = data
    found = (root / name).stat()
    assert (found.st_size, found.st_blocks) == (SPARSE_SIZE, -(-6001 // 512))
    assert (root / name).read_bytes() == expected
    descriptor = os.open(root / name, os.O_RDONLY)
    # Where the holes are is not told, so that all of it is data.
    assert os.lseek(descriptor, 100, os.SEEK_DATA) == 100
    assert os.lseek(descriptor, 100, os.SEEK_HOLE) == SPARSE_SIZE
    for offset, size in ((900, 200), ((1 << 20) - 5, 10), ((5 << 20) - 1, 100), (SPARSE_SIZE - 1, 5)):
        assert os.pread(descriptor, size, offset) == expected[offset : offset + size]
    os.close(descriptor)
    subprocess.run(["cp", "--sparse=always", root / name, tmp_path / "copy"], check=True)
    assert (tmp_path / "copy").read_bytes() == expected


def test_directories_lead_up_and_numbers_are_those_of_stat(image: Path) -> None:
    for place in ("rootfs", "rootfs/etc", "layers/0", "layers/0/etc", "layers"):
        done = subprocess.run(["ls", "-ia", image / place], capture_output=True, check=True)
        numbers = {name: number for number, name in re.findall(rb"^ *([0-9]+) (\.\.?)$", done.stdout, re.MULTILINE)}
        assert int(numbers[b"."]) == (image / place).stat().st_ino
        assert int(numbers[b".."]) == (image / place).parent.stat().st_ino


WRITES: dict[str, Callable[[Path], object]] = {
    "open for writing": lambda root: os.open(root / "owned", os.O_WRONLY),
    "create": lambda root: os.open(root / "etc" / "new", os.O_WRONLY | os.O_CREAT),
    "remove": lambda root: os.unlink(root / "etc" / "motd"),
    "remove a directory": lambda root: os.rmdir(root / "etc"),
    "make a directory": lambda root: os.mkdir(root / "new"),
    "rename": lambda root: os.rename(root / "owned", root / "other"),
    "link": lambda root: os.link(root / "owned", root / "other"),
    "symlink": lambda root: os.symlink("x", root / "other"),
    "mode": lambda root: os.chmod(root / "owned", 0o777),
    "owner": lambda root: os.chown(root / "owned", 0, 0),
    "owner of a link": lambda root: os.lchown(root / "absolute", 1, 1),
    "times": lambda root: os.utime(root / "owned"),
    "truncate": lambda root: os.truncate(root / "owned", 0),
    "set an attribute": lambda root: os.setxattr(root / "owned", "user.x", b"y"),
    "remove an attribute": lambda root: os.removexattr(root / "capable", "security.capability"),
    "the mode of the root": lambda root: os.chmod(root, 0o777),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_is_refused(root: Path, write: Callable[[Path], object]) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        write(root)
    assert raised.value.errno == errno.EROFS


def test_without_trees_there_are_none(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"), "--no-trees")
    assert sorted(os.listdir(mountpoint)) == ["blobs", "config", "index.json", "manifest.json", "oci-layout"]
    assert not (mountpoint / "rootfs").exists()


def test_with_index_all_layers_are_indexed_before_the_mount_returns(imgfs: Bench) -> None:
    notes = _noting(imgfs)
    mountpoint = imgfs.mount(ARCHIVE.write(imgfs.folder / "image.tar"), "--index", "--no-cache")
    assert notes.read_text() == "index\n" * 2
    assert (mountpoint / "rootfs" / "owned").read_bytes() == b"12345"
    assert os.listdir(mountpoint / "layers" / "1")
    assert notes.read_text() == "index\n" * 2


def test_nothing_is_said_of_work_that_takes_seconds(imgfs: Bench) -> None:
    many = changeset(fifo("x") * 30_000)
    path = Archive(layers=[many]).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--index", "--log-file", imgfs.log, path, mountpoint)
    assert without_figures(done.err) == f"imgfs: mounted {path} on {mountpoint}; log: {imgfs.log}\n"
    assert os.listdir(mountpoint / "rootfs") == ["x"]


def test_a_layer_that_cannot_be_indexed_fails_a_mount_with_index(imgfs: Bench) -> None:
    broken = UPPER[:1024] + b"\x07" * 1024
    path = Archive(layers=[BASE, broken], layer_names=["0", "1"]).write(imgfs.folder / "image.tar")
    done = imgfs.run("mount", "--index", "--log-file", imgfs.log, path, imgfs.mountpoint())
    damage = "damaged: no tar header at offset 1024: the checksum does not match"
    assert done == Finished(5, "", f"imgfs: {path}: layer 1 (1): {damage}\n")
    assert mounted_below(imgfs.folder) == []


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_corrupt_layer_is_an_io_error_there_and_all_else_goes_on(imgfs: Bench, compression: str | None) -> None:
    data = compressed(UPPER, compression)
    broken = data[:1024] + b"\x07" * 1024 if compression is None else data[:-20]
    stored = [compressed(BASE, compression), broken]
    archive = Archive(layers=stored, config=image_config([BASE, UPPER]), layer_names=["0", "1"])
    mountpoint = imgfs.mount(archive.write(imgfs.folder / "image.tar"))
    imgfs.log_is_quiet = False
    for look in (os.listdir, lambda place: (place / "etc").stat()):
        for place in ("layers/1", "rootfs"):
            with pytest.raises(OSError, match="Input/output error"):
                look(mountpoint / place)
    assert (mountpoint / "layers" / "0" / "owned").read_bytes() == b"12345"
    assert _said(mountpoint / "rootfs") == _said(mountpoint / "layers" / "1") == UNLOOKED
    subprocess.run(["ls", "-l", mountpoint, mountpoint / "layers"], stdout=subprocess.DEVNULL, check=True)
    assert tree(mountpoint / "blobs")
    lines = imgfs.log.read_text().splitlines()
    assert all(re.search(r"\]: ERROR: .*/image.tar: layer 1 \(1\): (damaged|truncated)", line) for line in lines), lines
    assert len(lines) == 1, f"one layer is damaged: {len(lines)} lines"


def test_what_is_skipped_in_a_layer_is_one_warning(imgfs: Bench) -> None:
    layer = changeset(file("ok", b"x"), file(".wh.", b""), symlink("empty", ""), file("ok/below", b""))
    mountpoint = imgfs.mount(Archive(layers=[layer], layer_names=["0"]).write(imgfs.folder / "image.tar"))
    imgfs.log_is_quiet = False
    for place in ("rootfs", "layers/0", "rootfs"):
        assert os.listdir(mountpoint / place) == ["ok"]
    (line,) = imgfs.log.read_text().splitlines()
    assert "]: WARNING: " in line


def test_more_large_directories_at_a_time_than_are_kept_are_listed_whole(imgfs: Bench) -> None:
    folders = [f"d{number}" for number in range(20)]
    names = {f"{number:04d}" for number in range(2000)}
    data = changeset(*(file(f"{folder}/{name}") for folder in folders for name in names))
    rootfs = imgfs.mount(Archive(layers=[data]).write(imgfs.folder / "image.tar")) / "rootfs"
    scans = [os.scandir(rootfs / folder) for folder in folders]
    try:
        listed = [{entry.name for entry in entries} for entries in zip(*scans, strict=True)]
    finally:
        for scan in scans:
            scan.close()
    assert [len(together) for together in listed] == [1] * 2000
    assert set().union(*listed) == names


def test_every_inode_number_fits_into_32_bits(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    words = ["find", str(mountpoint), "-printf", "%i %P\\n"]
    numbers = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(numbers) > 20
    assert [line for line in numbers if int(line.split()[0]) >= 1 << 32] == []
