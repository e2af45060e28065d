"""What root's process gives up once its mount is there (capabilities(7))."""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_DAC_OVERRIDE = 1
_SYS_ADMIN = 21
_VERSION_3 = 0x20080522
_HEADER = struct.Struct("=Ii")
_DATA = struct.Struct("=6I")
"""Effective, permitted and inheritable, for the lower 32 capabilities and then the upper ones."""
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def drop_privileges(folders: Iterable[str]) -> None:
    """Keep of root's capabilities only the one to unmount, and leave to new processes none at all.

    It holds for this thread and those it starts.  Another user than root keeps all: what unmounts for them,
    fusermount3, gets its rights by being setuid, and `no_new_privs` would take those away.

    Files that root may open as their owner still open.  If one of the *folders* that files are yet to be made in, or
    the interpreter itself (which runs indexers), belongs to someone who keeps even root out without it,
    CAP_DAC_OVERRIDE stays: otherwise the first look into a layer would fail.
    """
    if os.geteuid() != 0:
        return
    held = _permitted()
    kept = {_SYS_ADMIN} & held
    # Where mount(8) keeps a list of its own, libfuse starts umount(8) at the end.
    for_children = kept if _is_plain_file("/etc/mtab") else set()
    _set_capabilities(effective=kept, permitted=held)
    if not _can_work(folders):
        kept |= {_DAC_OVERRIDE} & held
        for_children |= {_DAC_OVERRIDE} & held
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(effective=held, permitted=held)  # to take from the bounding set is a privilege itself
    for capability in held - for_children:
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without CAP_SETPCAP: then nothing is lost
    _set_capabilities(effective=kept, permitted=kept)


def _can_work(folders: Iterable[str]) -> bool:
    """Return whether files can be made in *folders* and the interpreter be run with the capabilities of now."""
    program = all(os.access(path, os.R_OK, effective_ids=True) for path in (os.__file__, __file__, sys.executable))
    return program and all(os.access(path, os.W_OK | os.X_OK, effective_ids=True) for path in folders)


def _is_plain_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _permitted() -> set[int]:
    data = ctypes.create_string_buffer(_DATA.size)
    _check(_libc.capget(_HEADER.pack(_VERSION_3, 0), data))
    _, low, _, _, high, _ = _DATA.unpack(data.raw)
    return {number for number in range(64) if (low | high << 32) >> number & 1}


def _set_capabilities(effective: set[int], permitted: set[int]) -> None:
    sets = [sum(1 << number for number in numbers) for numbers in (effective, permitted, ())]
    low, high = ([bits >> shift & 0xFFFFFFFF for bits in sets] for shift in (0, 32))
    _check(_libc.capset(_HEADER.pack(_VERSION_3, 0), _DATA.pack(*low, *high)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")
