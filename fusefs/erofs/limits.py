"""All bounds of the metadata, in one place: the kernel parses it as root, so nothing else may reach it.

An image chooses only numbers and names, and each of them passes one of these functions before it is written.
They raise `Unfit`.  Structures, offsets and counts are the writer's own.
"""

from collections.abc import Sequence
from operator import lt

from fusefs.erofs.ondisk import FILE_TYPES
from fusefs.errors import Unsupported

MAX_NAME = 255
"""Bytes of a name in a directory (EROFS_NAME_LEN)."""
MAX_TARGET = 4095
"""Bytes of the target of a symbolic link: with the NUL after it, a page (PATH_MAX)."""
MAX_SIZE = (1 << 63) - 1
"""Bytes of a file (loff_t)."""
MAX_ID = (1 << 32) - 1
MAX_SECONDS = 1 << 62
"""Seconds before and after 1970 that a layer index may have."""
SECOND = 10**9
"""Nanoseconds; those of a time are fewer."""
MAX_MAJOR, MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1
MAX_XATTR_VALUE = (1 << 16) - 1
MAX_XATTR_WORDS = (1 << 16) - 1
"""Words of 4 bytes that the extended attributes of an inode take behind it, and one."""
MAX_SHARED_XATTRS = 255
MAX_ROOT = (1 << 16) - 1
"""The number of the root directory's inode."""
MAX_DEVICES = 16_000
"""The device table lies before the root directory: more would move that beyond `MAX_ROOT`."""
MAX_BLOCKS = 1 << 24
"""Blocks of the metadata, 8 GiB; the devices follow in the unified address space."""
ADDRESS_SPACE = (1 << 32) - 1
"""Blocks of the unified address space, 2 TiB: the metadata and all devices."""
MAX_CHUNK_BITS = 31
"""A chunk has at most 2 to this power blocks, 1 TiB."""
MAX_TABLE, MAX_COPIED = 16 << 20, 64 << 20
"""Bytes of a file's chunk table and of its data that are copied, since they are no whole blocks; of all files."""


class Unfit(Unsupported):
    """EROFS cannot show this image; the message says why.  FUSE can."""


def check_inode(mode: int, nlink: int, uid: int, gid: int, size: int) -> None:
    """Check the numbers of an inode."""
    if mode >> 16 or mode & 0o170000 not in FILE_TYPES:
        raise Unfit(f"a file has the unknown type {mode:o}")
    if not (0 < nlink <= MAX_ID and 0 <= uid <= MAX_ID and 0 <= gid <= MAX_ID):
        raise Unfit(f"a file has {nlink} links and the owner {uid}:{gid}")
    if not 0 <= size <= MAX_SIZE:
        raise Unfit(f"a file has {size} bytes")


def check_time(seconds: int, nanoseconds: int) -> None:
    """Check a time."""
    if not (-MAX_SECONDS <= seconds <= MAX_SECONDS and 0 <= nanoseconds < SECOND):
        raise Unfit(f"a file has the time {seconds} s and {nanoseconds} ns")


def check_device_number(major: int, minor: int) -> None:
    """Check the numbers of a device file."""
    if not (0 <= major <= MAX_MAJOR and 0 <= minor <= MAX_MINOR):
        raise Unfit(f"a device has the number {major}:{minor}")


def check_target(target: bytes) -> None:
    """Check the target of a symbolic link."""
    if not 0 < len(target) <= MAX_TARGET or b"\0" in target:
        raise Unfit(f"a symbolic link has a target of {len(target)} bytes, or with a NUL in it")


def check_names(names: Sequence[bytes], last: bytes) -> None:
    """Check names that follow *last* in a directory, ``.`` and ``..`` among them: sorted, and each only once."""
    if not all(map(lt, (last, *names), names)) or max(map(len, names), default=0) > MAX_NAME:
        raise Unfit(f"a directory has the same name twice, or one of more than {MAX_NAME} bytes")
    joined = b"".join(names)
    if b"/" in joined or b"\0" in joined:
        raise Unfit("a directory has a name with a slash or a NUL in it")


def check_extent(offset: int, size: int, file_size: int) -> None:
    """Check that *size* bytes at *offset* are inside a file of *file_size* bytes."""
    if not 0 <= offset <= offset + size <= file_size:
        raise Unfit(f"{size} bytes at {offset} are beyond the end of a file of {file_size} bytes")
