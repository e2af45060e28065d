"""The first request to a new mount."""

import os
from pathlib import Path

import pytest

from fusefs.mount import trial
from fusefs.mount.mountinfo import mount_of


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("file", ["manifest.json", "another"])
def test_the_child_has_nothing_open_in_the_mount_when_it_answers(tmp_path: Path, file: str, *, listed: bool) -> None:
    """Its end would wait for the server, which waits for its end."""
    (tmp_path / file).write_bytes(b"{}")
    folder = os.open(tmp_path, os.O_PATH)
    mount = mount_of(folder)
    assert mount is not None
    before = os.listdir("/proc/self/fd")
    trial._read(mount._replace(mountpoint=str(tmp_path)), listed=listed)
    assert os.listdir("/proc/self/fd") == before
    os.close(folder)
