"""Mounts of root in the kernel's table of mounts."""

import os
from pathlib import Path

import pytest

from fusefs.mount.mountinfo import mount_at
from tests.support.file_systems import is_at, tmpfs


@pytest.mark.parametrize(
    "name", ["a b", "tab\there", "line\nbreak", "back\\slash", "\\040", " - x", "#", "é", os.fsdecode(b"\xff\xfe")]
)
def test_names_are_read_as_the_kernel_writes_them(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with tmpfs(folder):
        assert is_at(mount_at(str(folder)), str(folder), "tmpfs")
    assert mount_at(str(folder)) is None


def test_of_two_mounts_at_one_place_the_upper_one_counts(tmp_path: Path) -> None:
    with tmpfs(tmp_path):
        lower = mount_at(str(tmp_path))
        assert is_at(lower, str(tmp_path), "tmpfs")
        with tmpfs(tmp_path):
            upper = mount_at(str(tmp_path))
            assert is_at(upper, str(tmp_path), "tmpfs")
            assert upper != lower
        assert mount_at(str(tmp_path)) == lower
