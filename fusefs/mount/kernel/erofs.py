"""Mounting EROFS metadata and the files that hold the data (Documentation/filesystems/erofs.rst)."""

import errno
import os
import struct
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack

from fusefs.errors import limit_reached
from fusefs.mount.kernel.loop import bind_loop_device
from fusefs.mount.kernel.source_name import call_with_path, shown_source
from fusefs.mount.kernel.support import Backing, KernelUnable, backing_here
from fusefs.mount.syscalls import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    fsconfig,
    fsmessages,
    fsmount,
    fsopen,
)
from fusefs.text import printable

_ATTRIBUTES = {"noexec": MOUNT_ATTR_NOEXEC, "noatime": MOUNT_ATTR_NOATIME}
_ALWAYS = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_SUPERBLOCK = struct.Struct("<I 82x H 40x")
"""The magic and the number of devices besides the metadata (erofs_fs.h, struct erofs_super_block)."""
_SUPERBLOCK_OFFSET = 1024
_MAGIC = 0xE0F5E1E2
_ABOUT_METADATA = frozenset({errno.EINVAL, errno.EUCLEAN, errno.EOPNOTSUPP, errno.EIO})
"""EROFS gives the reason to the kernel's log."""


def mount_erofs(metadata: int, devices: Sequence[int], source: str, flags: Collection[str] = ()) -> int:
    """Return a descriptor of the root of a read-only mount that is attached nowhere, and ends with the descriptor.

    *metadata* and *devices* are open for reading; the mount holds its own references to them.  The devices are in
    the order of the metadata's device table.  *source* is the name of the mount's device in the mount table.
    *flags*: any of ``noexec`` and ``noatime``; others have no meaning here.  Always ``ro,nosuid,nodev``.

    Raises KernelUnable if the version of the kernel, this process or the files do not permit it.  The check of the
    contents is the caller's (`check_contents`).
    """
    backing = backing_here()
    _check_device_count(metadata, len(devices))
    attributes = _ALWAYS | sum(_ATTRIBUTES.get(flag, 0) for flag in set(flags))
    if backing is Backing.FILE:
        try:
            return _mounted(metadata, devices, source, attributes)
        except _NotABlockDevice:  # metadata in tmpfs or overlayfs, or a kernel without EROFS_FS_BACKED_BY_FILE
            pass
    with ExitStack() as stack:
        loops = []
        for file in (metadata, *devices):
            loops.append(bind_loop_device(file))
            stack.callback(os.close, loops[-1])
        return _mounted(loops[0], loops[1:], source, attributes)


class _NotABlockDevice(KernelUnable):
    """ENOTBLK: this kernel needs a block device for this metadata file."""


def _check_device_count(metadata: int, count: int) -> None:
    """Compare with the metadata: without any device the kernel would mount, and fail at each read (``flatdev``)."""
    try:
        data = os.pread(metadata, _SUPERBLOCK.size, _SUPERBLOCK_OFFSET)
    except OSError as error:
        raise KernelUnable(f"cannot read the EROFS metadata: {error.strerror}") from None
    magic, stated = _SUPERBLOCK.unpack(data) if len(data) == _SUPERBLOCK.size else (0, 0)
    if magic != _MAGIC:
        raise KernelUnable("the EROFS metadata have no superblock")
    if stated != count:
        raise KernelUnable(f"the EROFS metadata have {stated} devices, {count} were given")


def _mounted(metadata: int, devices: Iterable[int], source: str, attributes: int) -> int:
    try:
        context = fsopen(b"erofs")
    except OSError as error:
        raise KernelUnable(_reason(error)) from None
    try:
        fsconfig(context, FSCONFIG_SET_FLAG, b"ro")
        for device in devices:
            fsconfig(context, FSCONFIG_SET_STRING, b"device", b"/proc/self/fd/%d" % device)
        call_with_path(shown_source(source), metadata, lambda path: _create(context, path))
        return fsmount(context, attributes)
    except OSError as error:
        unable = _NotABlockDevice if error.errno == errno.ENOTBLK else KernelUnable
        words = "; ".join(filter(None, map(printable, fsmessages(context))))
        raise unable(f"{_reason(error)}{words and f' ({words})'}") from None
    finally:
        os.close(context)


def _create(context: int, source: bytes) -> None:
    fsconfig(context, FSCONFIG_SET_STRING, b"source", source)
    fsconfig(context, FSCONFIG_CMD_CREATE)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "this kernel has no EROFS; load its module (modprobe erofs)"
    if error.errno == errno.EPERM:  # in a user namespace, too
        return "only root of the machine may mount EROFS"
    hint = "; see dmesg" if error.errno in _ABOUT_METADATA else ""
    return f"the kernel refuses the EROFS mount: {limit_reached(error) or error.strerror}{hint}"
