"""``imgfs mount IMAGE`` without a mountpoint: imgfs makes one, prints it, and removes it again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.mounts import Bench, mounted_below
from tests.support.processes import until
from tests.support.users import USER


@pytest.fixture(name="runtime")
def runtime_directory(user: Bench) -> Path:
    """The runtime directory of a user who is not root."""
    path = user.folder / "runtime"
    path.mkdir(mode=0o700)
    os.chown(path, USER, USER)
    user.environment["XDG_RUNTIME_DIR"] = str(path)
    return path


@pytest.fixture(name="archive")
def small_archive(user: Bench) -> Path:
    """A small image."""
    return Archive().write(user.folder / "app:1.tar")


def _made(bench: Bench, *words: str | Path) -> Path:
    """Mount, and return the path that is the only thing printed."""
    done = bench.run("mount", "--log-file", bench.folder / "home" / "log", *words)
    assert (done.status, done.err) == (0, "")
    return Path(done.out.removesuffix("\n"))


def _folders(runtime: Path) -> list[str]:
    return sorted(set(os.listdir(runtime / "imgfs")) - {"mounting"})


def test_it_prints_the_path_alone_and_umount_removes_the_directory(user: Bench, runtime: Path, archive: Path) -> None:
    made = _made(user, archive)
    assert made == runtime / "imgfs" / "app@1.tar"
    listed = subprocess.run([*user.command[:-1], "ls", made], check=True, capture_output=True, text=True).stdout
    assert listed.split() == ["blobs", "config", "index.json", "layers", "manifest.json", "oci-layout", "rootfs"]
    assert user.run("umount", made).status == 0
    assert _folders(runtime) == []


def test_a_second_mount_of_one_name_is_beside_the_first(user: Bench, runtime: Path, archive: Path) -> None:
    assert [_made(user, archive).name for _ in range(3)] == ["app@1.tar", "app@1.tar-2", "app@1.tar-3"]
    done = user.run("umount", archive)
    first = runtime / "imgfs" / "app@1.tar"
    assert (done.status, done.err) == (
        9,
        f"imgfs: {archive} is mounted 3 times: {first}, {first}-2, {first}-3; name one of these\n",
    )
    assert user.run("umount", "--all").status == 0
    assert _folders(runtime) == []


def test_an_image_that_is_mounted_once_is_unmounted_by_its_name(user: Bench, runtime: Path, archive: Path) -> None:
    _made(user, archive)
    assert user.run("umount", archive).status == 0
    assert (_folders(runtime), mounted_below(user.folder)) == ([], [])


def test_fusermount_leaves_no_directory(user: Bench, runtime: Path, archive: Path) -> None:
    made = _made(user, archive)
    subprocess.run([*user.command[:-1], "fusermount3", "-u", made], check=True)
    until(lambda: _folders(runtime) == [], "the directory is removed")


def test_an_empty_directory_that_was_left_is_used(user: Bench, runtime: Path, archive: Path) -> None:
    left = runtime / "imgfs" / "app@1.tar"
    left.mkdir(parents=True, mode=0o700)
    for path in (left, left.parent):
        os.chown(path, USER, USER)
    assert _made(user, archive) == left


def test_an_image_that_cannot_be_opened_leaves_no_directory(user: Bench, runtime: Path) -> None:
    done = user.run("mount", user.folder / "missing.tar")
    assert (done.status, done.out) == (4, "")
    assert _folders(runtime) == []


def test_output_that_cannot_be_written_leaves_no_mount(user: Bench, runtime: Path, archive: Path) -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        words = [*user.command, "mount", "--driver", "fuse", str(archive)]
        done = subprocess.run(words, env=user.environment, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert (done.returncode, done.stderr) == (8, "imgfs: cannot write standard output: No space left on device\n")
    until(lambda: not user.processes(), "the mount ends")
    assert (_folders(runtime), mounted_below(user.folder)) == ([], [])


def test_two_mounts_at_the_same_time_get_two_directories(user: Bench, runtime: Path, archive: Path) -> None:
    started = [user.start("mount", archive) for _ in range(4)]
    said = sorted(process.communicate(timeout=20)[0] for process in started)
    expected = ["app@1.tar", *(f"app@1.tar-{number}" for number in (2, 3, 4))]
    assert said == [f"{runtime}/imgfs/{name}\n" for name in expected]


def test_an_image_called_as_the_file_for_locks_leaves_that_alone(user: Bench, runtime: Path) -> None:
    made = _made(user, Archive().write(user.folder / "mounting"))
    assert (made, (runtime / "imgfs" / "mounting").is_file()) == (runtime / "imgfs" / "mounting-2", True)
    assert user.run("umount", made).status == 0
    assert os.listdir(runtime / "imgfs") == ["mounting"]


@pytest.mark.parametrize("runtime_directory", ["", "relative"])
def test_without_a_runtime_directory_a_mountpoint_must_be_named(
    user: Bench, archive: Path, runtime_directory: str
) -> None:
    done = user.run("mount", archive, XDG_RUNTIME_DIR=runtime_directory)
    assert (done.status, done.out, done.err) == (
        9,
        "",
        "imgfs: there is no folder for a mountpoint: XDG_RUNTIME_DIR is not set; give a MOUNTPOINT\n",
    )


def test_a_folder_of_another_user_is_refused(user: Bench, runtime: Path, archive: Path) -> None:
    (runtime / "imgfs").mkdir()  # as root, who runs this test
    done = user.run("mount", archive)
    assert (done.status, done.err) == (
        9,
        f"imgfs: cannot make a mountpoint in {runtime}/imgfs: it belongs to another user\n",
    )


@pytest.fixture(name="run_imgfs")
def folder_of_root() -> Iterator[Path]:
    """The folder of root, whose mountpoints of before stay."""
    folder = Path("/run/imgfs")
    yield folder
    if folder.exists() and not os.listdir(folder):
        shutil.rmtree(folder)


def test_a_kernel_mount_of_root_is_removed_with_its_directory(imgfs: Bench, run_imgfs: Path) -> None:
    name = f"{imgfs.folder.name}.tar"
    archive = Archive().write(imgfs.folder / name)
    cached = imgfs.run("mount", "--driver", "erofs", f"docker-archive:{archive}")
    if cached.status:  # no snapshots here: the user may change the archive
        cached = imgfs.run("mount", archive)
    made = run_imgfs / name
    assert (cached.status, cached.out) == (0, f"{made}\n")
    assert imgfs.run("umount", made).status == 0
    assert not made.exists()
