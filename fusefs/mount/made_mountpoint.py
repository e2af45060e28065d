"""Mountpoints that imgfs makes and removes itself, in a folder that only this user can enter.

A directory is removed only while it is locked as for a mount, so that of two processes, one that mounts and one that
removes what a mount has left, either the second leaves it or the first makes it again.  Plain umount(8) leaves an
empty directory if no process serves the mount; the next mount of that name uses it.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress

from fusefs.errors import MountError
from fusefs.mount.mountpoint import LOCKS, Mountpoint, claim_mountpoint, locked, runtime_directory
from fusefs.oci.transport import Holder, transport_of
from fusefs.private import private_directory
from fusefs.text import printable

_FOLDER = "imgfs"
_MAX_NAME = 100
_MOST = 100
"""Mounts of one name; there may be several, for example of several platforms."""


def make_mountpoint(name: str, environment: Mapping[str, str]) -> Mountpoint:
    """Make the directory *name*, or *name*-2 and so on if that is in use, and claim it.

    It is in ``$XDG_RUNTIME_DIR/imgfs``, as root in ``/run/imgfs``.  Raises MountError without such a folder.
    """
    folder = _folder(environment)
    if folder is None:
        raise MountError("there is no folder for a mountpoint: XDG_RUNTIME_DIR is not set; give a MOUNTPOINT")
    try:
        os.close(private_directory(folder))
        number = 2 if name == LOCKS else 1  # a directory in the place of that file would leave all mounts without locks
        while True:
            path = os.path.join(folder, name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            try:
                mountpoint = claim_mountpoint(path, environment)
            except MountError:
                if os.path.lexists(path):  # otherwise a mount that ended has just removed it
                    number += 1
                if number > _MOST:
                    raise
                continue
            if os.fstat(mountpoint.directory).st_nlink:
                return mountpoint
            mountpoint.close()
    except OSError as error:
        raise MountError(f"cannot make a mountpoint in {printable(folder)}: {error.strerror}") from None


def safe_name(image: str) -> str:
    """Return a name for the mountpoint of *image*, a reference or a path, that no shell or PATH has to quote.

    ``nginx:1.27`` is ``nginx@1.27``, ``docker://ghcr.io/team/app`` is ``ghcr.io_team_app``, ``./x/app.tar`` and
    ``https://host/x/app.tar?key`` are ``app.tar``, ``-`` is ``image``.
    """
    transport = transport_of(image)
    name = image.removeprefix(transport.prefix) if transport else image
    is_path = transport.holder in (Holder.FILE, Holder.DIRECTORY) if transport else name.startswith((".", "/"))
    if "://" in name:  # all users see the table of mounts, and the query of a URL may be a signature
        name, is_path = name.partition("?")[0], True
    name = os.path.basename(name.rstrip("/")) if is_path else name
    name = re.sub(r"[^A-Za-z0-9._@+-]", "_", name.replace(":", "@"))
    name = name[-_MAX_NAME:].lstrip(".-")
    return name or "image"


def remove_mountpoint(path: str, environment: Mapping[str, str]) -> None:
    """Remove the directory at *path* if it is empty, in this user's folder, and nobody is about to mount on it."""
    folder = _folder(environment)
    if folder is None or os.path.dirname(path) != folder:
        return
    with suppress(OSError):
        directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(directory)
            lock = locked(status.st_dev, status.st_ino, environment)
        finally:
            os.close(directory)
        try:
            os.rmdir(path)
        finally:
            if lock is not None:
                os.close(lock)


def _folder(environment: Mapping[str, str]) -> str | None:
    runtime = runtime_directory(environment)
    return None if runtime is None else os.path.join(os.path.realpath(runtime), _FOLDER)
