"""imgfs umount: unmount images."""

import argparse
import os
from collections.abc import Iterable, Mapping

from fusefs.errors import MountError
from fusefs.mount.made_mountpoint import remove_mountpoint
from fusefs.mount.mountinfo import FILE_SYSTEM, Mount, mounts
from fusefs.mount.status import MountStatus, State, image_mounts, query_status
from fusefs.mount.unmounting import unmount_all
from fusefs.oci.reference import same_image
from fusefs.text import printable

_PATIENCE = 2.0
"""Seconds to wait for kernel mounts."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Unmount each mountpoint; errors do not stop the others, and are raised together at the end."""
    refused: list[str] = []
    named = [*_targets(arguments.mountpoint, refused), *(unmountable() if arguments.all else ())]
    failed = refused + unmount_all(named, lazily=arguments.lazy)
    for target in named:
        path = target.mountpoint if isinstance(target, Mount) else os.path.abspath(target)
        remove_mountpoint(path, environment)
    if failed:
        raise MountError("; ".join(failed))


def unmountable(seconds: float = _PATIENCE) -> list[Mount]:
    """Return the mounts of all images that this user may unmount, newest first.

    A kernel mount that does not say within *seconds* whether it is of an image is left out.
    """
    user = os.geteuid()
    if user == 0:
        return image_mounts(seconds)[::-1]
    return [mount for mount in mounts() if mount.file_system == FILE_SYSTEM and mount.owner == user][::-1]


def _targets(words: Iterable[str], refused: list[str]) -> list[str | Mount]:
    """Return the path or the mount that each word means; add an error message to *refused* for an ambiguous one."""
    targets: list[str | Mount] = []
    statuses: list[MountStatus] | None = None
    for word in words:
        if _is_mountpoint(word):
            targets.append(word)
            continue
        if statuses is None:
            statuses = named_mounts()
        found = [status.mount for status in statuses if word == status.image or same_image(word, status.image)]
        if len(found) > 1:
            places = ", ".join(sorted(printable(mount.mountpoint) for mount in found))
            refused.append(f"{printable(word)} is mounted {len(found)} times: {places}; name one of these")
        else:
            targets.append(found[0] if found else word)
    return targets


def named_mounts(seconds: float = _PATIENCE) -> list[MountStatus]:
    """Return the mounts that this user may unmount, newest first, with their images, as far as known in *seconds*.

    Of FUSE mounts, which may never answer, the kernel's table has these; only one with a name that is too long for it
    is asked.
    """
    statuses = [MountStatus(mount, State.MOUNTED) for mount in unmountable(seconds)]
    unsure = [one for one in statuses if one.mount.file_system != FILE_SYSTEM or one.image.startswith("…")]
    sure = [one for one in statuses if one not in unsure]
    return sure + query_status((one.mount for one in unsure), seconds)


def _is_mountpoint(word: str) -> bool:
    """Return whether *word* is the path of a mountpoint, without links.  Asks no file system."""
    path = os.path.abspath(word)
    return any(mount.mountpoint == path for mount in mounts())
