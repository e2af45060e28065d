"""The namespaces of a throwaway container: mounts, and for other users than root, users."""

import contextlib
import os
import pwd
import shutil
import subprocess
from typing import NamedTuple

from fusefs.errors import MountError
from fusefs.mount.privileges import may_mount
from fusefs.mount.syscalls import CLONE_NEWNS, CLONE_NEWUSER, make_mounts_private, unshare

_ALL_USERS = 1 << 16
"""Users that images have: a range of this many is mapped, if the system gives one (subuid(5))."""
_FIRST = [b"0", b"0", b"4294967295"]
"""All users of the first user namespace, as ``uid_map`` shows them (user_namespaces(7))."""


class Users(NamedTuple):
    """The users of the namespace."""

    has_all: bool
    """Whether it has the users that images have, and not root alone."""
    is_first: bool
    """Whether it is the first user namespace: that of the system."""


def enter_namespaces() -> Users:
    """Enter a mount namespace, and a user namespace unless this process may mount; call it without threads.

    Raises MountError if the system does not allow that.
    """
    if may_mount():
        _unshare(CLONE_NEWNS)
    else:
        _enter_user_namespace()
    try:
        make_mounts_private()
    except OSError as error:
        raise MountError(f"cannot make mounts private: {error.strerror}; {_ADVICE}") from None
    with open("/proc/self/uid_map", "rb") as file:
        words = file.read().split()
    return Users(sum(map(int, words[2::3])) > 1, words == _FIRST)


_ADVICE = (
    "run it as root, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns)"
)


def _unshare(flags: int) -> None:
    try:
        unshare(flags)
    except OSError as error:
        kind = "user" if flags & CLONE_NEWUSER else "mount"
        raise MountError(f"cannot make a {kind} namespace: {error.strerror}; {_ADVICE}") from None


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    mapper = _mapper(user, group)
    try:
        _unshare(CLONE_NEWUSER | CLONE_NEWNS)
        if mapper is not None:
            mapper.communicate(b"\n")
    finally:
        if mapper is not None:
            mapper.kill()
            mapper.wait()
    try:
        for kind, number in (("uid", user), ("gid", group)):
            if not _read(f"/proc/self/{kind}_map"):  # there is no range, or no program to map it
                if kind == "gid":
                    _write("/proc/self/setgroups", b"deny")
                _write(f"/proc/self/{kind}_map", b"0 %d 1" % number)
    except OSError as error:
        raise MountError(f"cannot map users into a namespace: {error.strerror}; {_ADVICE}") from None


def _mapper(user: int, group: int) -> "subprocess.Popen[bytes] | None":
    """Start a program outside of the namespace that maps the user's own ranges into it, once it reads a line."""
    ranges = [_own_range(path, user) for path in ("/etc/subuid", "/etc/subgid")]
    if None in ranges or not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    calls = [
        f"{program} {os.getpid()} 0 {own} 1 1 {start} {_ALL_USERS - 1}"
        for program, own, start in zip(("newuidmap", "newgidmap"), (user, group), ranges, strict=True)
    ]
    script = f"read _ && {' && '.join(calls)}"
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _own_range(path: str, user: int) -> int | None:
    """Return the first number of a range in a file like subuid(5) that is large enough; None if there is none."""
    names = {str(user)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(user).pw_name)
    for line in _read(path).decode("utf-8", "replace").splitlines():
        name, *numbers = line.strip().split(":")
        if name in names and len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            start, count = map(int, numbers)
            if count >= _ALL_USERS - 1:
                return start
    return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).strip()
    except OSError:
        return b""


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
