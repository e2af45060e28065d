"""Files of a cache entry that count once they are sealed."""

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from typing import Any

SEAL = ".seal"
"""Ends the name of another file's seal."""
_FORMAT = 1
_MAGIC = b"imgfs cache %d " % _FORMAT
_SUM = 64
"""Characters of the checksum after the magic; a line feed and the document follow."""
_MAX_DOCUMENT = 256 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Facts = dict[str, Any]


class Altered(Exception):
    """A kept file is not what was kept: altered, cut, or of another version."""


def new_file(directory: int) -> int:
    """Return the descriptor of a new file in *directory* that has no name yet."""
    # Without O_EXCL, with which a file can never be linked.
    return os.open(f"/proc/self/fd/{directory}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def link(descriptor: int, directory: int, name: str) -> None:
    """Give the file *descriptor* a *name*; FileExistsError if that is taken."""
    source = f"/proc/self/fd/{descriptor}"
    # Only with src_dir_fd does Python use linkat(2), which follows the link; link(2) says EXDEV.
    os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)


def lock(directory: int, kind: int) -> bool:
    """Return whether the lock could be had at once."""
    try:
        fcntl.flock(directory, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def stated(descriptor: int) -> list[int]:
    """Return what the file system says of a file that changes with each change of it."""
    found = os.fstat(descriptor)
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def open_sealed(directory: int, name: str, facts: Mapping[str, Any]) -> int:
    """Open the file *name* that *facts* were kept with; Altered if it is another one, or none."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise _altered(name, error) from None
    try:
        found = stated(descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or found != facts.get("file"):
            raise Altered(f"{name} was altered")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _altered(name: str, error: OSError) -> Exception:
    """Return what an *error* of opening the kept file *name* says: not each, as too many open files, is of the file."""
    of_file = error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EACCES)
    return Altered(f"{name}: {error.strerror}") if of_file else error


def write_document(directory: int, name: str, document: Facts, *, sync: bool = False) -> None:
    """Write *document* as the file *name*, whole or not at all.

    Without *sync* a crash of the machine may leave it without its bytes: then it is not what its checksum says.
    """
    data = json.dumps(document, separators=(",", ":")).encode()
    descriptor = new_file(directory)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(_MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        if sync:
            os.fsync(descriptor)
        link(descriptor, directory, name)
    finally:
        os.close(descriptor)


def read_document(directory: int, name: str) -> Facts | None:
    """Return the document in the file *name*, None if there is none; Altered if it is not as it was written."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _altered(name, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Altered(f"{name} is no file")
    with open(descriptor, "rb") as file:
        raw = file.read(_MAX_DOCUMENT)
    if not raw.startswith(_MAGIC):
        raise Altered(f"{name} is of another version")
    checksum, _, data = raw.removeprefix(_MAGIC).partition(b"\n")
    if hashlib.sha256(data).hexdigest().encode() != checksum:
        raise Altered(f"{name} was altered")
    document = json.loads(data)
    assert isinstance(document, dict)  # as we wrote it: the checksum says so
    return document


def open_directory(directory: int, name: str) -> int:
    """Open the directory *name* in *directory*; no link is followed."""
    return os.open(name, _DIRECTORY, dir_fd=directory)
