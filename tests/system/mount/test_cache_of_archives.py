"""What is kept of archives that users name: their indexes, never beside them, and never when they change."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Archive, compressed, image_config, layer
from tests.support.mounts import Bench, Finished, tree
from tests.support.processes import until


def entries(imgfs: Bench) -> list[Path]:
    """Return the entries of archives."""
    return sorted((imgfs.cache / "files").iterdir())


def mounted(imgfs: Bench, path: Path, *options: str) -> dict[str, bytes | None]:
    """Mount *path*, and return all that is there; then nothing is mounted and all is kept."""
    mountpoint = imgfs.mount(path, *options, at=imgfs.mountpoint(f"mnt{len(os.listdir(imgfs.folder))}"))
    found = dict(tree(mountpoint))
    assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
    until(lambda: not imgfs.processes(), "all processes end")
    return found


def test_indexes_are_kept_in_the_cache_and_not_beside_the_archive(imgfs: Bench) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    before = set(os.listdir(imgfs.folder))
    first = mounted(imgfs, path)
    assert {name for name in set(os.listdir(imgfs.folder)) - before if not name.startswith("mnt")} == {"cache", "log"}
    (entry,) = entries(imgfs)
    kept = {re.sub(r"^[0-9a-f]{64}-[0-9]+", "*", name) for name in os.listdir(entry)}
    assert kept == {"index", "*.layer", "*.layer.seal"}
    assert mounted(imgfs, path) == first
    assert entries(imgfs) == [entry]


def test_a_second_mount_makes_nothing(imgfs: Bench) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    mounted(imgfs, path)
    mountpoint = imgfs.mount(path)
    assert os.listdir(mountpoint / "rootfs")
    assert imgfs.made_files(mountpoint) == []


def test_a_rewrite_with_the_same_size_and_time_is_another_archive(imgfs: Bench) -> None:
    path = imgfs.folder / "image.tar"
    found = []
    for data in (b"1", b"2"):
        plain = Archive(layers=[layer({"x": data})]).data()
        with path.open("r+b" if path.exists() else "xb") as file:  # in place: the same inode
            file.write(plain)
        os.utime(path, ns=(0, 1_700_000_000 * 10**9))
        found.append(mounted(imgfs, path)["rootfs/x"])
    assert found == [b"1", b"2"]
    assert len(entries(imgfs)) == 2


def test_an_archive_whose_headers_are_others_than_were_kept_is_found_out(imgfs: Bench) -> None:
    first, second = imgfs.folder / "1.tar", imgfs.folder / "2.tar"
    Archive(layers=[layer({"x": b"1"})]).write(first)
    Archive(layers=[layer({"y": b"2"})]).write(second)
    mounted(imgfs, first)
    (entry,) = entries(imgfs)
    status = second.stat()
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    entry.rename(entry.with_name("-".join(f"{number:x}" for number in numbers)))
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--log-file", imgfs.log, second, mountpoint)
    assert done.status == 0
    warning = r"imgfs: warning: .*/files/[0-9a-f-]+: dropped: the header at offset [0-9]+ has changed"
    assert re.fullmatch(warning, done.err.splitlines()[0])
    assert (mountpoint / "rootfs" / "y").read_bytes() == b"2"


@pytest.mark.parametrize("data", [b"", b"imgfs cache 0 ", b"x" * 1000])
def test_an_index_that_was_altered_is_made_anew(imgfs: Bench, data: bytes) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    first = mounted(imgfs, path)
    (entry,) = entries(imgfs)
    (entry / "index").write_bytes(data)
    done = imgfs.run("mount", "--log-file", imgfs.log, path, imgfs.mountpoint())
    warning = f"imgfs: warning: {entry}: dropped: index was written by another version of imgfs"
    assert (done.status, done.err.splitlines()[0]) == (0, warning)
    assert tree(imgfs.folder / "mnt") == first
    assert imgfs.run("umount", imgfs.folder / "mnt") == Finished(0, "", "")
    until(lambda: not imgfs.processes(), "all processes end")
    assert mounted(imgfs, path) == first


def test_warnings_are_said_again(imgfs: Bench) -> None:
    path = imgfs.folder / "image.tar"
    path.write_bytes(Archive().data()[:-1024])
    said = []
    for number in range(2):
        mountpoint = imgfs.mountpoint(f"mnt{number}")
        said.append(imgfs.run("mount", "--log-file", imgfs.log, path, mountpoint).err.splitlines()[0])
        assert imgfs.run("umount", mountpoint) == Finished(0, "", "")
        until(lambda: not imgfs.processes(), "all processes end")
    assert said[0] == said[1]
    assert "the end of the archive is not marked" in said[0]


def test_two_images_in_one_archive_share_an_entry_and_no_index_that_differs(imgfs: Bench) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    one = mounted(imgfs, path)
    two = mounted(imgfs, Path(f"docker-archive:{path}:@0"))
    assert {name: data for name, data in one.items() if name.startswith("rootfs")} == {
        name: data for name, data in two.items() if name.startswith("rootfs")
    }
    assert len(entries(imgfs)) == 1


def test_decompressed_layers_are_kept(imgfs: Bench) -> None:
    plain = layer({"x": b"1" * 1000})
    path = Archive(layers=[compressed(plain, "gzip")], config=image_config([plain])).write(imgfs.folder / "image.tar")
    first = mounted(imgfs, path)
    (entry,) = entries(imgfs)
    (tar,) = entry.glob("*.tar")
    assert tar.read_bytes() == plain
    assert mounted(imgfs, path) == first


@pytest.mark.parametrize("ending", ["tar.gz", "pipe"])
def test_of_streams_nothing_is_kept(imgfs: Bench, ending: str) -> None:
    data = Archive().data()
    mountpoint = imgfs.mountpoint()
    if ending == "pipe":
        with subprocess.Popen(["cat", Archive().write(imgfs.folder / "image.tar")], stdout=subprocess.PIPE) as cat:
            assert cat.stdout is not None
            process = imgfs.start("mount", "-q", "--log-file", imgfs.log, "-", mountpoint, stdin=cat.stdout.fileno())
            assert process.wait(10) == 0
    else:
        path = imgfs.folder / "image.tar.gz"
        path.write_bytes(compressed(data, "gzip"))
        imgfs.mount(path, at=mountpoint)
    assert os.listdir(mountpoint / "rootfs")
    assert not imgfs.cache.exists()
    assert imgfs.made_files(mountpoint) != []


def test_a_kill_leaves_nothing_that_counts(imgfs: Bench) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    first: dict[str, bytes | None] = {}
    for _ in range(5):
        mountpoint = imgfs.mount(path, at=imgfs.folder / "mnt" if first else None)
        os.listdir(mountpoint / "rootfs")
        os.kill(imgfs.serving(mountpoint), signal.SIGKILL)
        until(lambda: not imgfs.processes(), "all processes end")
        assert imgfs.run("umount", mountpoint).status == 0
        found = mounted(imgfs, path)
        assert found == (first or found)
        first = found
        for entry in entries(imgfs):
            subprocess.run(["rm", "-r", entry], check=True)


def test_a_mount_goes_on_when_its_cache_is_removed(imgfs: Bench) -> None:
    mountpoint = imgfs.mount(Archive().write(imgfs.folder / "image.tar"))
    until(lambda: [path for entry in entries(imgfs) for path in entry.iterdir()], "the index is kept")
    subprocess.run(["rm", "-r", imgfs.cache], check=True)
    assert os.listdir(mountpoint / "rootfs")
    assert imgfs.made_files(mountpoint) == []


def test_where_no_entry_can_be_made_nothing_is_kept_and_that_is_said(imgfs: Bench) -> None:
    path = Archive().write(imgfs.folder / "image.tar")
    first = mounted(imgfs, path)
    (entry,) = entries(imgfs)
    subprocess.run(["rm", "-r", entry], check=True)
    entry.touch()
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--log-file", imgfs.log, path, mountpoint)
    assert (done.status, done.err.splitlines()[0]) == (0, f"imgfs: warning: cannot cache {path}: Not a directory")
    assert tree(mountpoint) == first


def test_what_is_no_image_leaves_nothing(imgfs: Bench) -> None:
    for number, data in enumerate((b"garbage" * 1000, Archive(config=b"{").data())):
        path = imgfs.folder / f"{number}.tar"
        path.write_bytes(data)
        assert imgfs.run("mount", path, imgfs.mountpoint(f"mnt{number}")).status == 5
        assert entries(imgfs) == []
