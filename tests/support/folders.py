"""Folders to work in, which other users can look into."""

import uuid
from pathlib import Path

_BASE = Path("/var/tmp")
"""Not below pytest's own directory, where no other user gets in."""


def new_folder(name: str, mode: int = 0o700) -> Path:
    """Make a folder; *name* is a part of its own name.

    `tempfile` draws names with underscores, and one at the wrong place makes a path that podman and
    buildah do not take in a reference.
    """
    folder = _BASE / f"imgfs-tests-{name}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(mode)
    folder.chmod(mode)
    return folder
