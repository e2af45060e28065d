"""Capabilities that a mount's process drops if root started it (capabilities(7))."""

import ctypes
import os
import struct
import sys
from collections.abc import Collection

_DAC_OVERRIDE = 1
_DAC_READ_SEARCH = 2
_SYS_ADMIN = 21
_VERSION_3 = 0x20080522
_HEADER = struct.Struct("=Ii")
_DATA = struct.Struct("=6I")
"""Effective, permitted and inheritable, for the lower 32 capabilities and then the upper ones."""
_ALL_USERS = [b"0", b"0", b"4294967295"]
"""Users of the first user namespace, as /proc/PID/uid_map shows them (user_namespaces(7))."""
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def drop_privileges(folders: Collection[str], files: Collection[str] = ()) -> None:
    """Drop all capabilities of root but the one to unmount; leave none to new processes.

    This holds for the calling thread and for threads it starts later.  Other users than root keep theirs: they
    unmount with fusermount3, which is setuid and would lose its rights with `no_new_privs`.

    Files that root may open as their owner can still be opened.  CAP_DAC_OVERRIDE stays if one of the *folders* in
    which files will be created, or the interpreter itself (which runs indexers), is closed to root without it, but
    not with it: otherwise the first access to a layer would fail.  CAP_DAC_READ_SEARCH stays, without leaving it to new
    processes, if one of the *files*, which will be read, is.
    """
    if os.geteuid() != 0:
        return
    held = _permitted()
    kept = {_SYS_ADMIN} & held
    # With a mtab that is a plain file, libfuse runs umount(8) at the end.
    for_children = kept if _is_plain_file("/etc/mtab") else set()
    usable, known = _usable(folders), _known(files)
    _set_capabilities(effective=kept, permitted=held)
    if known - _known(files):
        kept |= {_DAC_READ_SEARCH} & held
    if usable - _usable(folders):
        kept |= {_DAC_OVERRIDE} & held
        for_children |= {_DAC_OVERRIDE} & held
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(effective=held, permitted=held)  # to drop from the bounding set takes a capability itself
    for capability in held - for_children:
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails without CAP_SETPCAP, which is harmless
    _set_capabilities(effective=kept, permitted=kept)


def keep_capabilities(kept: Collection[int]) -> None:
    """Leave to this process, and to programs that it starts, no other capabilities than those *kept*."""
    held = _permitted()
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        if capability not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for those that the kernel does not know
    _set_capabilities(effective=held & set(kept), permitted=held & set(kept))


def may_mount() -> bool:
    """Return whether this process may mount and unmount itself, without fusermount3."""
    return _SYS_ADMIN in _effective()


def may_administrate(thread: int) -> bool:
    """Return whether the *thread* with this id has CAP_SYS_ADMIN in the first user namespace; False if that is unknown.

    In another user namespace a capability counts for nothing outside of it.
    """
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            status = file.read()
        with open(f"/proc/{thread}/uid_map", "rb") as file:
            identities = file.read()
    except OSError:
        return False
    effective = int(status.partition(b"\nCapEff:")[2].split(b"\n", 1)[0], 16)
    return bool(effective >> _SYS_ADMIN & 1) and identities.split() == _ALL_USERS


def _usable(folders: Collection[str]) -> set[str]:
    """Return the *folders* and files of the interpreter that the effective capabilities suffice to use."""
    needed = dict.fromkeys((os.__file__, __file__, sys.executable), os.R_OK)
    needed |= dict.fromkeys(folders, os.W_OK | os.X_OK)
    return {path for path, mode in needed.items() if os.access(path, mode, effective_ids=True)}


def _known(files: Collection[str]) -> set[str]:
    """Return the *files* that the effective capabilities suffice to read, or to know that they do not exist."""
    return {path for path in files if _is_missing(path) or os.access(path, os.R_OK, effective_ids=True)}


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def _is_plain_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _permitted() -> set[int]:
    _, low, _, _, high, _ = _held()
    return _numbers(low, high)


def _effective() -> set[int]:
    low, _, _, high, _, _ = _held()
    return _numbers(low, high)


def _held() -> tuple[int, ...]:
    data = ctypes.create_string_buffer(_DATA.size)
    _check(_libc.capget(_HEADER.pack(_VERSION_3, 0), data))
    return _DATA.unpack(data.raw)


def _numbers(low: int, high: int) -> set[int]:
    return {number for number in range(64) if (low | high << 32) >> number & 1}


def _set_capabilities(effective: set[int], permitted: set[int]) -> None:
    sets = [sum(1 << number for number in numbers) for numbers in (effective, permitted, ())]
    low, high = ([bits >> shift & 0xFFFFFFFF for bits in sets] for shift in (0, 32))
    _check(_libc.capset(_HEADER.pack(_VERSION_3, 0), _DATA.pack(*low, *high)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")
