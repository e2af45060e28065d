"""Ctrl-C at a bad moment: just when a thread has been started, during an import, at the end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

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


_COMMAND = """
import importlib, signal, sys
from fusefs import cli

sys.path.insert(0, {folder!r})
{patch}
sys.argv = ["imgfs", "list"]
sys.exit(cli.main())
"""
_INTERRUPTING_MODULE = """
import signal, sys, time
signal.raise_signal(signal.SIGINT)
print("imported", flush=True)

def run(*_):
    while True:
        time.sleep(0.01)
"""


def _run(folder: Path, patch: str) -> tuple[int, str, str]:
    """Run a command in which *patch* lets Ctrl-C come; return its status and output."""
    script = _COMMAND.format(folder=str(folder), patch=patch)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=10, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("caller", ["pass", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})"])
def test_an_import_is_not_interrupted_and_the_command_is(tmp_path: Path, caller: str) -> None:
    # An exception could leave the lock of all imports taken, and a thread that imports would wait for ever.
    (tmp_path / "interrupting.py").write_text(_INTERRUPTING_MODULE)
    patch = f"{caller}; cli.import_command = lambda _: importlib.import_module('interrupting')"
    assert _run(tmp_path, patch) == (130, "imported\n", "imgfs: interrupted\n")


def test_ctrl_c_at_the_end_leaves_no_traceback(tmp_path: Path) -> None:
    patch = "cli.flush_stderr = lambda: signal.raise_signal(signal.SIGINT)"
    assert _run(tmp_path, f"cli.import_command = lambda _: sys.modules[__name__]; run = lambda *_: 0; {patch}") == (
        -signal.SIGINT, "", "",
    )  # fmt: skip


def test_ctrl_c_that_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    patch = "cli.import_command = lambda _: sys.modules[__name__]; run = lambda *_: signal.raise_signal(signal.SIGINT)"
    assert _run(tmp_path, f"signal.signal(signal.SIGINT, signal.SIG_IGN); {patch}") == (0, "", "")
