"""imgfs umount."""

import argparse
from collections.abc import Mapping

from fusefs.mountpoint import unmount


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:  # noqa: ARG001 - as every command
    """Unmount."""
    unmount(arguments.mountpoint)
