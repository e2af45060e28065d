"""Where a cache refuses to be, as only root can arrange it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.caches import refusal
from tests.support.file_systems import tmpfs
from tests.support.requirements import ROOT, need


@pytest.fixture(name="path")
def cache_path(tmp_path: Path) -> Path:
    """Where the cache is to be."""
    return tmp_path / "cache"


def test_a_directory_of_someone_else_is_refused(path: Path) -> None:
    need(ROOT)
    path.mkdir(0o700)
    os.chown(path, 1234, 0)
    assert refusal(path) == "it belongs to another user"


def test_a_file_system_that_is_read_only_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with tmpfs(folder):
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert refusal(folder / "cache") == "Read-only file system"
