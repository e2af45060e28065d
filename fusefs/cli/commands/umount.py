"""imgfs umount: unmount images."""

import argparse
import os
from collections.abc import Mapping

from fusefs.errors import MountError
from fusefs.mount.mountinfo import FILE_SYSTEM, Mount, mounts
from fusefs.mount.unmounting import unmount_all


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:  # noqa: ARG001 - the signature of all commands
    """Unmount each mountpoint; errors do not stop the others, and are raised together at the end."""
    failed = unmount_all([*arguments.mountpoint, *(unmountable() if arguments.all else ())], lazily=arguments.lazy)
    if failed:
        raise MountError("; ".join(failed))


def unmountable() -> list[Mount]:
    """Return the mounts of all images that this user may unmount, newest first."""
    user = os.geteuid()
    own = [mount for mount in mounts() if mount.file_system == FILE_SYSTEM and user in (0, mount.owner)]
    return own[::-1]
