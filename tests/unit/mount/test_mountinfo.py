"""The kernel's table of mounts."""

import pytest

from fusefs.mount.mountinfo import mount_at
from tests.support.file_systems import mounted


def test_a_mount_is_found_by_its_path() -> None:
    assert mount_at("/proc") == mounted("/proc", "proc")


@pytest.mark.parametrize("path", ["/proc/self", "/proc/", "/proc\n", "", "/no such directory", "proc"])
def test_what_is_no_mountpoint_is_not_found(path: str) -> None:
    assert mount_at(path) is None
