"""What a test needs of the machine: there, or the test is skipped with the reason, or fails where nothing may be."""

import os
import shutil
from typing import NoReturn

import pytest

SKIP_NOTHING = "IMGFS_TESTS_SKIP_NOTHING"
"""Set to 1 where every test has to run: then a missing requirement is a failure."""

FUSE = "/dev/fuse"
ROOT = "root"


def need(*requirements: str) -> None:
    """Go on if *requirements* are there: ROOT, paths of devices (FUSE), and programs by their names."""
    missing = [why for why in map(_missing, requirements) if why]
    if missing:
        give_up(", ".join(missing))


def give_up(reason: str) -> NoReturn:
    """Skip for *reason*, or fail where nothing may be skipped."""
    if os.environ.get(SKIP_NOTHING) == "1":
        pytest.fail(f"{reason}, and {SKIP_NOTHING}=1", pytrace=False)
    pytest.skip(reason)


def _missing(requirement: str) -> str | None:
    if requirement == ROOT:
        return None if os.geteuid() == 0 else "needs root"
    if requirement.startswith("/"):
        return None if os.access(requirement, os.R_OK | os.W_OK) else f"needs {requirement}"
    return None if shutil.which(requirement) else f"needs {requirement} on the PATH"
