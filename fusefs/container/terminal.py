"""A system call filter (seccomp(2)) that keeps programs from typing into the caller's terminal.

A program may otherwise put characters into the input of its terminal, for the shell that reads there next.
"""

import ctypes
import errno
import struct
import sys

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_IOCTLS = (
    (0xC000003E, (16, 0x40000000 | 514)),  # x86-64, and x32 on it
    (0x40000003, (54,)),  # i386
    (0xC00000B7, (29,)),  # aarch64
    (0x40000028, (54,)),  # arm
    (0xC00000F3, (29,)),  # riscv64
    (0x80000016, (54,)),  # s390x
    (0xC0000015, (54,)),  # ppc64le
)
"""The number of ioctl(2) on each architecture (linux/audit.h); on others, nothing is filtered."""
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
"""BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K (linux/filter.h)."""
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24
"""Offsets in struct seccomp_data."""
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_terminal_input() -> None:
    """Refuse TIOCSTI and TIOCLINUX to this process and to those that it starts, if the kernel can.

    Takes CAP_SYS_ADMIN in the process's user namespace.
    """
    program = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _program())
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(buffer))
    _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0)


def _program(order: str = sys.byteorder) -> list[tuple[int, int, int, int]]:
    """Return the filter for a byte *order*: code, two jumps (instructions to skip if equal, if not), and a value."""
    request = _SECOND_ARGUMENT + (4 if order == "big" else 0)  # its lower half
    program = []
    for architecture, numbers in _IOCTLS:
        for number in numbers:
            program += [
                (_LOAD, 0, 0, _ARCHITECTURE),
                (_EQUAL, 0, 6, architecture),
                (_LOAD, 0, 0, _NUMBER),
                (_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, request),
                (_EQUAL, 1, 0, _TIOCSTI),
                (_EQUAL, 0, 1, _TIOCLINUX),
                (_RETURN, 0, 0, _REFUSE),
            ]
    return [*program, (_RETURN, 0, 0, _ALLOW)]
