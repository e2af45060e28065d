"""The key of an archive in the cache."""

import os

from fusefs.content.file import OpenFile


def archive_key(file: OpenFile) -> str:
    """Return a key that changes whenever *file* does: a program that resets the mtime still changes the ctime."""
    stat = os.fstat(file.descriptor)
    parts = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return "-".join(f"{part:x}" for part in parts)
