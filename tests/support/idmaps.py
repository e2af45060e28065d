"""Idmapped mounts (mount_setattr(2)) for the tests: mount(8) makes them since util-linux 2.39."""

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusefs.mount.syscalls import move_mount

_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_CLONE, _CLOEXEC = 1, os.O_CLOEXEC
_EMPTY_PATH = 0x1000
_IDMAP = 0x100000
_ATTRIBUTES = struct.Struct("=QQQQ")
"""struct mount_attr: to set, to clear, propagation, the user namespace."""
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def idmapped(source: Path, target: Path, first: int) -> Iterator[None]:
    """Mount the directory *source* on *target*, with owners from 0 on shown from *first* on; OSError if refused."""
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _CLONE | _CLOEXEC))
    try:
        with _user_namespace(first) as namespace:
            attributes = _ATTRIBUTES.pack(_IDMAP, 0, 0, namespace)
            _checked(_libc.syscall(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, attributes, len(attributes)))
        directory = os.open(target, os.O_PATH)
        move_mount(tree, directory)
        os.close(directory)
    finally:
        os.close(tree)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


@contextmanager
def _user_namespace(first: int) -> Iterator[int]:
    """Give a descriptor of a user namespace whose users and groups are those of ours from *first* on."""
    words = ["unshare", "--user", "sh", "-c", "echo && read x"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(f"0 {first} 65536\n")
        namespace = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)
        try:
            yield namespace
        finally:
            os.close(namespace)
            process.communicate()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
