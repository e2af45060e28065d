"""The kernel's table of mounts."""

import os
from pathlib import Path

import pytest

from fusefs.mount.mountinfo import Mount, mount_at
from tests.support.file_systems import tmpfs


def mounted(path: str, file_system: str) -> Mount:
    """Return what is to be found at *path*."""
    return Mount(path, file_system, os.minor(os.stat(path).st_dev))


def test_a_mount_is_found_by_its_path() -> None:
    assert mount_at("/proc") == mounted("/proc", "proc")


@pytest.mark.parametrize("path", ["/proc/self", "/proc/", "/proc\n", "", "/no such directory", "proc"])
def test_what_is_no_mountpoint_is_not_found(path: str) -> None:
    assert mount_at(path) is None


@pytest.mark.parametrize(
    "name", ["a b", "tab\there", "line\nbreak", "back\\slash", "\\040", " - x", "#", "é", os.fsdecode(b"\xff\xfe")]
)
def test_names_are_read_as_the_kernel_writes_them(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with tmpfs(folder):
        assert mount_at(str(folder)) == mounted(str(folder), "tmpfs")
    assert mount_at(str(folder)) is None


def test_of_two_mounts_at_one_place_the_upper_one_counts(tmp_path: Path) -> None:
    with tmpfs(tmp_path):
        lower = mount_at(str(tmp_path))
        assert lower == mounted(str(tmp_path), "tmpfs")
        with tmpfs(tmp_path):
            upper = mount_at(str(tmp_path))
            assert upper == mounted(str(tmp_path), "tmpfs")
            assert upper != lower
        assert mount_at(str(tmp_path)) == lower
