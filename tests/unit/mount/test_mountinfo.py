"""The kernel's table of mounts."""

import os
import resource

import pytest

from fusefs.errors import LimitReached
from fusefs.mount.mountinfo import Mount, mount_at, mount_id, mounts, parsed
from tests.support.file_systems import is_at


def test_a_mount_is_found_by_its_path() -> None:
    assert is_at(mount_at("/proc"), "/proc", "proc")


@pytest.mark.parametrize("path", ["/proc/self", "/proc/", "/proc\n", "", "/no such directory", "proc"])
def test_what_is_no_mountpoint_is_not_found(path: str) -> None:
    assert mount_at(path) is None


LINE = b"36 35 0:52 / %s rw,nosuid - %s src rw,user_id=1000,group_id=1000\n"


def test_lines_end_at_newlines_alone_and_types_are_any_bytes() -> None:
    table = LINE % (b"/a\rb\x0c\x85", b"fuse.imgfs") + LINE % (b"/b", b"fuse.\xff\r")
    first, second = parsed(table)
    assert first == Mount(os.fsdecode(b"/a\rb\x0c\x85"), "fuse.imgfs", 52, "src", 1000, 36, 35)
    assert (second.mountpoint, os.fsencode(second.file_system)) == ("/b", b"fuse.\xff\r")


@pytest.mark.parametrize(
    "line", [b"\n", b"x\n", b"a b c d e f - g h i\n", b"1 2 0:x / /a rw - t s o\n", b"1 2 0:3 / /a rw\n"]
)
def test_lines_that_are_not_understood_are_passed_over(line: bytes) -> None:
    (mount,) = parsed(line + LINE % (b"/b", b"fuse.imgfs") + line)
    assert mount.mountpoint == "/b"


def test_without_a_free_descriptor_the_message_names_that_limit() -> None:
    null = os.open(os.devnull, os.O_RDONLY)  # the lowest free number and all below are taken
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (null + 1, before[1]))
    try:
        for ask in (lambda: list(mounts()), lambda: mount_id(null)):
            with pytest.raises(LimitReached, match=r"^too many open files"):
                ask()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(null)
