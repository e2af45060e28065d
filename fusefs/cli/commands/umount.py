"""imgfs umount: unmount images."""

import argparse
import os
from collections.abc import Mapping

from fusefs.errors import MountError
from fusefs.mount.mountinfo import FILE_SYSTEM, mounts
from fusefs.mount.mountpoint import unmount


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:  # noqa: ARG001 - the signature of all commands
    """Unmount each mountpoint; errors do not stop the others, and are raised together at the end."""
    failed = []
    for mountpoint in [*arguments.mountpoint, *(unmountable() if arguments.all else ())]:
        try:
            unmount(mountpoint, lazily=arguments.lazy)
        except MountError as error:
            failed.append(str(error))
    if failed:
        raise MountError("; ".join(failed))


def unmountable() -> list[str]:
    """Return the mountpoints of all images that this user may unmount, newest first."""
    user = os.geteuid()
    own = [mount for mount in mounts() if mount.file_system == FILE_SYSTEM and user in (0, mount.owner)]
    return [mount.mountpoint for mount in reversed(own)]
