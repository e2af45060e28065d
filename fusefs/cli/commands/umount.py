"""imgfs umount."""

import argparse
import os
from collections.abc import Mapping

from fusefs.errors import MountError
from fusefs.mount.mountinfo import FILE_SYSTEM, mounts
from fusefs.mount.mountpoint import unmount


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:  # noqa: ARG001 - as every command
    """Unmount, each as far as it can be; the errors come at the end."""
    failed = []
    for mountpoint in [*arguments.mountpoint, *(unmountable() if arguments.all else ())]:
        try:
            unmount(mountpoint, lazily=arguments.lazy)
        except MountError as error:
            failed.append(str(error))
    if failed:
        raise MountError("; ".join(failed))


def unmountable() -> list[str]:
    """Return the mountpoints of all images that this user may unmount, the latest first."""
    user = os.geteuid()
    found = [one for one in mounts() if one.file_system == FILE_SYSTEM and user in (0, one.owner)]
    return [one.mountpoint for one in reversed(found)]
