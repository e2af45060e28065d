"""Runs a command and waits for all processes that come from it: ``measured.py REPORT WORD...``.

Writes lines into the descriptor REPORT: the exit status of the command when that ends (128 and more: a signal), and
when the last process has ended, the peak memory of the largest process in KiB.
"""

import ctypes
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Run the command."""
    report, words = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # the process of a mount becomes a child of this one
    command = os.posix_spawnp(words[0], words, os.environ)
    os.closerange(0, 3)  # held by the command alone, so that their end is its end
    peak = 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        peak = max(peak, usage.ru_maxrss)
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            os.write(report, b"%d\n" % (code if code >= 0 else 128 - code))
    os.write(report, b"%d\n" % peak)


if __name__ == "__main__":
    main()
