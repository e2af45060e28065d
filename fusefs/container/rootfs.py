"""The root file system of a container: an overlay on that of the image, with /proc and a minimal /dev."""

import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from fusefs.errors import ImgfsError, MountError, Unavailable
from fusefs.mount.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    mount,
    move_mount,
    open_by_names,
    open_tree,
    pivot_root,
    umount2,
)

TOOLS = "/dev/imgfs"
"""The directory of the host's busybox in the container."""
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""Files of the host that programs need for its network."""
_MAX_FILE = 1 << 20
_PROTECTED = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""Parts of /proc in which root could change the system."""


class Tools(NamedTuple):
    """A static busybox."""

    program: bytes
    names: tuple[str, ...]
    """Its applets."""


class Plan(NamedTuple):
    """What a root file system consists of."""

    place: str
    """A directory to mount over, in this mount namespace alone."""
    lower: str
    """The image's root file system."""
    kept: tuple[str, str] | None
    """The directory for what changes, and the one that overlayfs needs beside it; None: both in memory."""
    tools: Tools | None
    all_users: bool
    first_users: bool
    """As of `Users`."""


def enter_root(plan: Plan) -> None:
    """Make the root file system and the root directory of this process; call it in a mount namespace of its own.

    Raises MountError if the system does not allow that, Unavailable if the image cannot be read.
    """
    os.umask(0)
    # Opened in this namespace: overlayfs accepts no mount of another one.
    layers = [_open_directory(path) for path in (plan.lower, *(plan.kept or ()))]
    files = {path: _contents(path) for path in _FILES}
    devices = {name: open_tree(f"/dev/{name}".encode()) for name in _DEVICES if os.path.exists(f"/dev/{name}")}
    with suppress(OSError):
        devices["console"] = open_tree(os.fsencode(os.ttyname(0)))
    _mount("tmpfs", plan.place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    os.chdir(plan.place)
    copies = {path: _copy(os.path.basename(path), data) for path, data in files.items() if data is not None}
    os.mkdir("root")
    _mount_overlay(plan, layers)
    for layer in layers:  # a path of the image, such as /proc/self/fd/N, must not lead to them
        os.close(layer)
    os.chdir("root")
    _call("the root directory", pivot_root, b".", b".")
    _make_proc(plan)  # while that of the old root is there: the kernel wants to see one in a user namespace
    umount2(b".", MNT_DETACH)  # the old root, which is mounted over the new one
    os.chdir("/")
    _make_dev(plan, devices)
    for path, copy in copies.items():
        _attach_file(path, copy)
    os.umask(0o022)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_overlay(plan: Plan, layers: list[int]) -> None:
    # Paths of descriptors need no escapes, and have no limit of their length.
    lower, *kept = (f"/proc/self/fd/{layer}" for layer in layers)
    if kept:
        upper, work = kept
    else:
        upper, work = "upper", "work"
        status = os.stat(lower)
        for name in (upper, work):
            os.mkdir(name)
        with suppress(OSError):  # a user that the namespace has not
            os.chown(upper, status.st_uid, status.st_gid)
        os.chmod(upper, stat.S_IMODE(status.st_mode))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    try:
        _mount("overlay", "root", "overlay", MS_NODEV, options + ("" if plan.first_users else ",userxattr"))
    except MountError as error:
        if plan.kept is None:
            raise
        advice = "--keep needs a directory below the root of a local file system with extended attributes"
        raise MountError(f"{error}; {advice}") from None


def _make_proc(plan: Plan) -> None:
    _make_directory("/proc")
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if plan.first_users:
        for name in _PROTECTED:
            path = f"/proc/{name}"
            with suppress(MountError):  # a kernel without it
                _mount(path, path, None, MS_BIND)
                _mount(None, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _make_dev(plan: Plan, devices: dict[str, int]) -> None:
    _make_directory("/dev")
    _mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755")
    for name, device in devices.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        _call(f"/dev/{name}", move_mount, device, f"/dev/{name}".encode())
        os.close(device)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    group = ",gid=5" if plan.all_users else ""
    _mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}")
    os.mkdir("/dev/shm")  # noqa: S108 - the container's
    _mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
    if plan.tools is not None:
        os.mkdir(TOOLS, 0o755)
        with open(f"{TOOLS}/busybox", "wb") as file:
            file.write(plan.tools.program)
        os.chmod(f"{TOOLS}/busybox", 0o755)  # noqa: S103
        for name in plan.tools.names:
            os.symlink("busybox", f"{TOOLS}/{name}")


def _contents(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_FILE)
    except OSError:
        return None


def _copy(name: str, data: bytes) -> int:
    """Return a mount of a file with *data*, which is attached nowhere yet: writes to it are not seen by the host."""
    with open(name, "wb") as file:
        file.write(data)
    os.chmod(name, 0o644)
    return open_tree(name.encode())


def _attach_file(path: str, copy: int) -> None:
    """Mount a file over the image's *path*; made if it is missing, unless its directory is missing, too."""
    with suppress(OSError):
        if not os.path.lexists(path):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(open_by_names(path.encode(), flags, 0o644))
        target = open_by_names(path.encode(), os.O_PATH | os.O_CLOEXEC)
        try:
            move_mount(copy, target)
        finally:
            os.close(target)
    os.close(copy)


def _make_directory(path: str) -> None:
    try:
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)
        if not stat.S_ISDIR(os.stat(path, follow_symlinks=False).st_mode):  # a link could lead anywhere
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise _failure(f"cannot make {path} in the container", error) from None


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    what = "an overlay, which in a user namespace needs Linux 5.11," if kind == "overlay" else target
    arguments = (source and source.encode(), target.encode(), kind and kind.encode(), flags, options.encode())
    _call(what, mount, *arguments)


def _call(what: str, function, *arguments) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002
    try:
        function(*arguments)
    except OSError as error:
        raise _failure(f"cannot mount {what} for the container", error) from None


def _failure(what: str, error: OSError) -> ImgfsError:
    """Return the error for *what* failed; EIO comes from the image, of which a layer is missing or damaged."""
    kind = Unavailable if error.errno == errno.EIO else MountError
    return kind(f"{what}: {error.strerror}")
