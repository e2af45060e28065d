"""The fork into the background."""

import subprocess
import sys

_PROGRAM = """
import logging, os, subprocess, threading
from fusefs.mount.background import in_background

done = []

def work():
    for _ in range(20):
        subprocess.run(["true"], check=True)
    done.append(True)

def run(ready):
    os.write(report, f"{done} {threading.active_count()}".encode())
    ready()

reader, report = os.pipe()
threading.Thread(target=work, daemon=True).start()
threading.Thread(target=threading.Event().wait, name="lookup", daemon=True).start()  # nobody waits for its end
in_background(run, logging.NullHandler())
print(os.read(reader, 100).decode())
"""


def test_no_thread_lives_at_the_fork() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[True] 1\n", "")
