"""The filter that keeps programs of a container from typing into the caller's terminal."""

import os
import struct
import subprocess
import sys

import pytest

from fusefs.container.terminal import _program
from tests.support.requirements import ROOT, need

SCRIPT = """
import fcntl, os, pty, sys, termios
from fusefs.container.terminal import forbid_terminal_input

def types(request):
    try:
        fcntl.ioctl(slave, request, b"x")
    except OSError as error:
        return error.strerror
    return "typed"

os.setsid()
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
before = types(termios.TIOCSTI)
forbid_terminal_input()
print(before, types(termios.TIOCSTI), fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)) == bytes(8), sep=", ")
"""


def test_no_program_types_into_the_terminal() -> None:
    need(ROOT)
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, env=os.environ)
    assert done.stdout == "typed, Operation not permitted, True\n"


def verdict(order: str, data: bytes) -> int:
    """Run the filter for a machine with this byte order, as the kernel does (Documentation/networking/filter.rst)."""
    program, at, loaded = _program(order), 0, 0
    while True:
        code, if_equal, if_not, value = program[at]
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("<I" if order == "little" else ">I", data, value)
            case 0x15:
                at += if_equal if loaded == value else if_not
            case _:
                return value


@pytest.mark.parametrize(
    ("order", "architecture", "number"),
    [("little", 0xC000003E, 16), ("little", 0xC00000B7, 29), ("big", 0x80000016, 54)],
)
def test_the_filter_reads_the_request_in_each_byte_order(order: str, architecture: int, number: int) -> None:
    def of(call: int, request: int) -> int:
        mark = "<" if order == "little" else ">"
        return verdict(order, struct.pack(f"{mark}iIQ6Q", call, architecture, 0, 1, request, 0, 0, 0, 0)) >> 16

    refused, allowed = 0x5, 0x7FFF
    assert [of(number, request) for request in (0x5412, 0x541C, 1 << 32 | 0x5412)] == [refused] * 3
    assert [of(number, 0x5413), of(number, 0x5412 << 32), of(number + 1, 0x5412)] == [allowed] * 3
