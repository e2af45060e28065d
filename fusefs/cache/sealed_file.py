"""Sealed files and checksummed documents of a cache entry; a file without a valid seal is ignored."""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from typing import Any

SEAL = ".seal"
"""Suffix of the name of a seal, after the name of its file."""
_NEW = ".new"
"""Suffix of the name that a document has for a moment, before it replaces another one."""
FORMAT = 1
"""The format of all documents in an entry.  Another format needs folders with other names (`store`)."""
_MAGIC = b"imgfs cache %d " % FORMAT
_ANY_MAGIC = re.compile(rb"imgfs cache [0-9]{1,4} ")
_SUM = 64
"""Hexadecimal digits of the checksum, which follows the magic; a line feed and the document follow it."""
_MAX_DOCUMENT = 256 << 20
Facts = dict[str, Any]


class Altered(Exception):
    """A cached file is missing, modified, truncated, or written by another version of imgfs."""


def new_file(directory: int) -> int:
    """Return the descriptor of a new file without a name in *directory*; its mode is 0600."""
    # No O_EXCL: it would forbid to link the file later.
    descriptor = os.open(f"/proc/self/fd/{directory}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, 0o600)  # the umask may have removed bits
    return descriptor


def link(descriptor: int, directory: int, name: str) -> None:
    """Give the file *descriptor* a *name*; FileExistsError if that is taken."""
    source = f"/proc/self/fd/{descriptor}"
    # Only with src_dir_fd does Python call linkat(2), which follows the symbolic link; link(2) fails with EXDEV.
    os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)


def stated(descriptor: int) -> list[int]:
    """Return size, inode, mtime and ctime of a file, which change with each modification."""
    status = os.fstat(descriptor)
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def open_sealed(directory: int, name: str, facts: Mapping[str, Any]) -> int:
    """Open the file *name* with the seal *facts*; Altered if the file is missing or does not match its seal."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise _altered(name, error) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or stated(descriptor) != facts.get("file"):
            raise Altered(f"{name} was altered")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _altered(name: str, error: OSError) -> Exception:
    """Return the exception for an *error* of opening *name*: Altered only if the file itself caused the error."""
    of_file = error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EACCES)
    return Altered(f"{name}: {error.strerror}") if of_file else error


def write_document(directory: int, name: str, document: Facts, *, sync: bool = False, replace: bool = False) -> None:
    """Write *document* as the file *name*, completely or not at all.

    FileExistsError if there is one, unless *replace*: then a kill leaves the old one or the new one.  Only
    one process at a time may do that.  Without *sync* a crash of the machine may lose the bytes; the checksum then does
    not match.
    """
    data = json.dumps(document, separators=(",", ":")).encode()
    descriptor = new_file(directory)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(_MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        if sync:
            os.fsync(descriptor)
        if replace:
            _replace(descriptor, directory, name)
        else:
            link(descriptor, directory, name)
    finally:
        os.close(descriptor)


def _replace(descriptor: int, directory: int, name: str) -> None:
    """Give the file *descriptor* the *name*, also if that is taken."""
    new = f"{name}{_NEW}"
    with contextlib.suppress(FileNotFoundError):  # left by a kill
        os.unlink(new, dir_fd=directory)
    link(descriptor, directory, new)
    os.replace(new, name, src_dir_fd=directory, dst_dir_fd=directory)


def read_document(directory: int, name: str, *, any_format: bool = False) -> Facts | None:
    """Return the document in the file *name*, None if it is missing; Altered if its checksum does not match.

    *any_format*: also read one of another version of imgfs, if it looks like ours.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _altered(name, error) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_DOCUMENT:
        os.close(descriptor)
        raise Altered(f"{name} is not a regular file, or is too large")
    with open(descriptor, "rb") as file:
        raw = file.read()  # with a limit, Python would reserve that much memory
    magic = _ANY_MAGIC.match(raw)
    if magic is None or not (any_format or magic[0] == _MAGIC):
        raise Altered(f"{name} was written by another version of imgfs")
    checksum, _, data = raw[magic.end() :].partition(b"\n")
    if hashlib.sha256(data).hexdigest().encode() != checksum:
        raise Altered(f"{name} was altered")
    document = json.loads(data)
    assert isinstance(document, dict)  # as every version writes it: the checksum matches
    return document
