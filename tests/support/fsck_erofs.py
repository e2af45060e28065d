"""fsck.erofs of erofs-utils 1.8, from a Debian 13 of its own: Debian 12's is older than blocks of 512 bytes."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from fusefs.erofs.writer import write
from fusefs.tree.node import Directory
from tests.support.folders import new_folder
from tests.support.modern_engines import debian_13, inside
from tests.support.requirements import ROOT, need

Fsck = Callable[[Directory], None]
"""Writes a view, and asserts that fsck.erofs finds no fault in its metadata and can read all its data."""


def fsck_erofs() -> Fsck:
    """Return the check."""
    need(ROOT, "unshare")
    root = debian_13("erofs-1", "erofs-utils")

    def check(view: Directory) -> None:
        folder = new_folder("fsck")
        try:
            with (folder / "metadata").open("wb") as out:
                written = write(view, out)
            options = []
            for number, device in enumerate(written.devices):
                with open(device.descriptor, "rb", closefd=False) as source, (folder / str(number)).open("wb") as copy:
                    os.sendfile(copy.fileno(), source.fileno(), 0, device.size)
                options.append(f"--device={folder / str(number)}")
            command = inside(root, [folder], "fsck.erofs", "-d3", "--extract", *options, str(folder / "metadata"))
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr + done.stdout
            assert "No errors found" in done.stdout + done.stderr
        finally:
            shutil.rmtree(folder)

    return check


@pytest.fixture(scope="session", name="fsck")
def fsck_fixture() -> Fsck:
    """Give the check."""
    return fsck_erofs()
