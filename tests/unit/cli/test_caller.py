"""How the command ends."""

import subprocess
import sys

import pytest

_PROGRAM = """
import atexit, sys, threading, time
atexit.register(print, "the end of Python", flush=True)
threading.Thread(target=time.sleep, args=(0.2,), daemon={daemon}).start()
from fusefs.cli import main
sys.argv = ["imgfs", "--version"]
sys.exit(main())
"""


@pytest.mark.parametrize(("daemon", "ends_at_once"), [(True, True), (False, False)])
def test_no_daemon_thread_sees_the_end_of_python(*, daemon: bool, ends_at_once: bool) -> None:
    """It would unload OpenSSL while a thread makes a handshake: a crash."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(daemon=daemon)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("imgfs ")
    assert ("the end of Python" in done.stdout) is not ends_at_once
