"""Loop devices (loop(4)): block devices whose bytes lie in a file.

A device is bound to its file and marked "autoclear" in one call, with the device open.  So it becomes free when the
last descriptor of it is closed and no mount uses it, even if this process is killed at any moment.
"""

import errno
import fcntl
import os
import stat
import struct

from fusefs.mount.kernel.support import KernelUnable

_CONTROL = "/dev/loop-control"
# Numbers and structures of include/uapi/linux/loop.h.
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
"""Since Linux 5.8."""
_READ_ONLY, _AUTOCLEAR = 1, 4
_MAJOR = 7
_CONFIG = struct.Struct("=II 52x I 160x 16x 64x")
"""struct loop_config: descriptor, block size, and of its loop_info64 the flags; a size limit of 0 is none."""
_BLOCK = 512
_ATTEMPTS = 100
"""How often another process may bind the device that was free."""


def bind_loop_device(file: int) -> int:
    """Return an open loop device, read-only, with blocks of 512 bytes, whose bytes are those of the open *file*.

    It has as many whole blocks as the file.  It is free again as soon as nothing uses it.  Raises KernelUnable.
    """
    for _ in range(_ATTEMPTS):
        path = f"/dev/loop{_free_device()}"
        device = _opened(path)
        try:
            fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(file, _BLOCK, _READ_ONLY | _AUTOCLEAR))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # another process has bound it since
                raise KernelUnable(f"cannot set up {path}: {error.strerror}") from None
        else:
            return device
    raise KernelUnable("cannot set up a loop device: other processes take them all")


def _free_device() -> int:
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KernelUnable(f"no loop devices: cannot open {_CONTROL}: {error.strerror}") from None
    try:
        return fcntl.ioctl(control, _GET_FREE)
    except OSError as error:
        raise KernelUnable(f"no loop device is free: {error.strerror}") from None
    finally:
        os.close(control)


def _opened(path: str) -> int:
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:  # containers have a /dev of their own
        raise KernelUnable(f"cannot open {path}: {error.strerror}") from None
    about = os.fstat(device)
    if not stat.S_ISBLK(about.st_mode) or os.major(about.st_rdev) != _MAJOR:
        os.close(device)
        raise KernelUnable(f"{path} is not a loop device")
    return device
