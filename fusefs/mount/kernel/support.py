"""Which kernels mount an EROFS file system of 512-byte blocks correctly, and from what: files, or loop devices.

The decision needs the version alone.  Trying is no alternative: 6.12.0 panics.  The sources are the commits and the
reviews of the stable kernels (stable@vger.kernel.org) that carry them:

=================  =========  ===========================================================================
commit             since      why
=================  =========  ===========================================================================
d3c4bdcc756e       6.4        blocks smaller than a page; before, only images of 4096-byte blocks mount
  (stable 6.1)     6.1.113    the same, with 9ed50b8231e3, for which it was ported (October 2024)
bae085416093       6.13       files: 512-byte blocks panicked (CVE-2024-56750)
  (stable 6.12)    6.12.2
6422cde1b0d5       6.13       files: buffered reads; before, each read went to the disk
  (stable 6.12)    6.12.7
bbfe756dc306       6.15       files: read-ahead could leave a page locked for ever
  (stable 6.14)    6.14.7
  (stable 6.12)    6.12.29
eade54040384       7.0        files: after the reader that filled a page was killed, the page was zeros for all
  (stable 6.19)    6.19.11
  (stable 6.18)    6.18.21
  (stable 6.12)    6.12.80
=================  =========  ===========================================================================

The commits are at https://git.kernel.org/linus/COMMIT.  Since eade54040384 a file that is too short gives EIO, as
loop devices always did.  6.13 to 6.17 ended without it.

Tried: 6.1.192 (Debian 12) and 6.8.0-151 (Ubuntu 24.04) with loop devices; 6.12.118 (Debian 13), 6.18.44 and 7.2.13
with both.  A distribution may port commits into older versions; imgfs does not rely on that.
"""

import os
import sys
from enum import Enum
from typing import NamedTuple

from fusefs.errors import MountError
from fusefs.pattern import pattern


class KernelUnable(MountError):
    """This kernel, this process or these files cannot give a kernel mount.  FUSE may be used instead."""


class BytesMissing(KernelUnable):
    """Bytes of the image are not on this machine yet."""


class Backing(Enum):
    """The kind of devices that the kernel reads the file system from."""

    FILE = "file"
    """The files themselves."""
    LOOP = "loop"
    """A loop device for each file."""


class KernelVersion(NamedTuple):
    """A version of Linux.  A candidate (``-rc3``) of a version is older than the version: its patch level is -1."""

    major: int
    minor: int
    patch: int


_RELEASE = pattern(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?(-rc[0-9])?(?![0-9])")
_DEBIAN = pattern(r"\bDebian ([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})-")
_LOOP = (KernelVersion(6, 4, 0), {(6, 1): 113})
_FILE = (KernelVersion(7, 0, 0), {(6, 12): 80, (6, 18): 21, (6, 19): 11})
"""The version from which on all kernels do it, and the first patch levels of older series that do it."""
_BENEATH = KernelVersion(6, 5, 0)
"""MOVE_MOUNT_BENEATH (commit 6ac392815628)."""
_PAGE_SIZE = 4096


def kernel_version(release: str, version: str = "") -> KernelVersion | None:
    """Return the version of a kernel from `os.uname`, None if it is not understood.

    Debian 12 gives the version of its ABI as the *release* (``6.1.0-28-amd64``); its *version* names the true one.
    """
    debian = _DEBIAN.search(version) if "Debian" in version else None
    match = debian or _RELEASE.match(release)
    if match is None:
        return None
    candidate = debian is None and match[4]
    return KernelVersion(int(match[1]), int(match[2]), -1 if candidate else int(match[3] or 0))


def backing_of(release: str, version: str = "") -> Backing:
    """Return what the kernel with these names (uname(2)) mounts correctly; KernelUnable if that is nothing."""
    parsed = kernel_version(release, version)
    if parsed is None:
        raise KernelUnable(f"kernel mounts are not possible: unknown kernel version {release!a}")
    if _reaches(parsed, *_FILE):
        return Backing.FILE
    if _reaches(parsed, *_LOOP):
        return Backing.LOOP
    patch = f".{parsed.patch}" if parsed.patch >= 0 else "-rc"
    shown = f"{parsed.major}.{parsed.minor}{patch}"
    raise KernelUnable(f"kernel mounts need Linux 6.4 or later, or 6.1.113 or a later 6.1; this is {shown}")


def backing_here() -> Backing:
    """Return what this machine's kernel mounts correctly; KernelUnable if that is nothing or was never tried."""
    names = os.uname()
    page, order = os.sysconf("SC_PAGESIZE"), sys.byteorder
    if page != _PAGE_SIZE or order != "little" or sys.maxsize < 1 << 32:
        raise KernelUnable(
            f"kernel mounts are not tested on this machine: {names.machine}, pages of {page} bytes, {order}-endian"
        )
    return backing_of(names.release, names.version)


def can_mount_beneath(release: str, version: str = "") -> bool:
    """Return whether the kernel can put a mount beneath another one."""
    parsed = kernel_version(release, version)
    return parsed is not None and parsed >= _BENEATH


def _reaches(version: KernelVersion, since: KernelVersion, series: dict[tuple[int, int], int]) -> bool:
    first = series.get((version.major, version.minor))
    return version >= since or (first is not None and version.patch >= first)
