"""The filter that keeps programs of a container from typing into the caller's terminal."""

import os
import subprocess
import sys

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
