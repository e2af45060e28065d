"""Ctrl-C at a bad moment: just when a thread has been started."""

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import sys, threading
from fusefs.cli.output.progress import Bars, Lines
from fusefs.sources.archive.spooling import spool_tar
from fusefs.content.spool import Spool

start = threading.Thread.start

def interrupted(thread):
    start(thread)
    raise KeyboardInterrupt

threading.Thread.start = interrupted
try:
    {work}
except KeyboardInterrupt:
    print("interrupted")
"""
WORK = {
    "saving": "spool_tar([bytes(4096)], Spool('/tmp', 'x'), 0)",
    "progress in lines": "Lines(sys.stderr).waiting('x').__enter__()",
    "progress on a terminal": "Bars(sys.stderr).waiting('x').__enter__()",
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_an_interrupt_while_a_thread_starts_ends_the_process(work: str) -> None:
    # A thread that nobody tells of it waits, or shows progress, for ever; and the process for the thread.
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(work=work)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert done.stdout == "interrupted\n"
