"""imgfs umount: unmount images."""

import argparse
import os
from collections.abc import Mapping

from fusefs.errors import MountError
from fusefs.mount.mountinfo import FILE_SYSTEM, Mount, mounts
from fusefs.mount.status import image_mounts
from fusefs.mount.unmounting import unmount_all

_PATIENCE = 2.0
"""Seconds to wait for kernel mounts."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:  # noqa: ARG001 - the signature of all commands
    """Unmount each mountpoint; errors do not stop the others, and are raised together at the end."""
    failed = unmount_all([*arguments.mountpoint, *(unmountable() if arguments.all else ())], lazily=arguments.lazy)
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
