"""The lock of a mountpoint: whatever is in the place of its file, nobody else can take it."""

import fcntl
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fusefs.errors import MountError
from fusefs.mount.mountpoint import claim_mountpoint
from tests.support.conformance import closing_what_is_opened
from tests.support.folders import new_folder
from tests.support.processes import umask_of, unprivileged

_WHOLE = struct.pack("@hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


@pytest.fixture(name="runtime")
def runtime_of_a_user() -> Iterator[Path]:
    """Be a user, whose directory for what runs this is."""
    folder = new_folder("runtime", 0o777)
    try:
        with closing_what_is_opened(), unprivileged():
            runtime = folder / "user"
            runtime.mkdir(0o700)
            (folder / "mnt").mkdir()
            yield runtime
    finally:
        shutil.rmtree(folder)


def _environment(runtime: Path) -> Mapping[str, str]:
    if os.geteuid() == 0:
        pytest.skip("root's directory is /run/imgfs")
    return {"XDG_RUNTIME_DIR": str(runtime)}


def _nothing(_: Path) -> None: ...


def _open_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def _closed_folder(folder: Path) -> None:
    folder.mkdir(0)


def _locked_file(folder: Path) -> None:
    _open_folder(folder)
    (folder / "mounting").touch()
    (folder / "mounting").chmod(0o666)
    fcntl.fcntl(os.open(folder / "mounting", os.O_RDWR), fcntl.F_OFD_SETLK, _WHOLE)


def _closed_file(folder: Path) -> None:
    folder.mkdir()
    (folder / "mounting").touch(0)


def _pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "mounting")


def _link(folder: Path) -> None:
    folder.mkdir()
    (folder / "mounting").symlink_to("../victim")


@pytest.mark.parametrize(
    "arrange", [_nothing, _open_folder, _closed_folder, _locked_file, _closed_file, _pipe, _link]
)  # fmt: skip
@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_first_gets_the_directory_and_the_second_is_told(
    runtime: Path, arrange: Callable[[Path], None], umask: int
) -> None:
    arrange(runtime / "imgfs")
    mountpoint = str(runtime.parent / "mnt")
    with umask_of(umask):
        first = claim_mountpoint(mountpoint, _environment(runtime))
        assert first.lock is not None
        with pytest.raises(MountError, match="another imgfs is mounting there"):
            claim_mountpoint(mountpoint, _environment(runtime))
    first.close()
    claim_mountpoint(mountpoint, _environment(runtime)).close()
    modes = [path.lstat().st_mode & 0o777 for path in (runtime / "imgfs", runtime / "imgfs" / "mounting")]
    assert modes == [0o700, 0o600]
    assert not (runtime / "victim").exists()


def _file(folder: Path) -> None:
    folder.touch()


def _folder_for_a_file(folder: Path) -> None:
    (folder / "mounting").mkdir(parents=True)


def _link_for_a_folder(folder: Path) -> None:
    (folder.parent / "victim").mkdir()
    folder.symlink_to("victim")


@pytest.mark.parametrize("arrange", [_file, _folder_for_a_file, _link_for_a_folder])
def test_without_a_private_folder_there_is_no_lock(runtime: Path, arrange: Callable[[Path], None]) -> None:
    arrange(runtime / "imgfs")
    mountpoint = claim_mountpoint(str(runtime.parent / "mnt"), _environment(runtime))
    assert mountpoint.lock is None
    mountpoint.close()
