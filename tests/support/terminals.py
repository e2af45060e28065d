"""Terminals with the command in them."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from pathlib import Path

from tests.support.mounts import Bench


class Terminal:
    """A terminal with the command in it."""

    def __init__(self, imgfs: Bench, *arguments: str | Path, columns: int = 120, stdout: int | None = None) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        self.process = subprocess.Popen(
            [*imgfs.command, *map(str, arguments)],
            env=imgfs.environment,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def sees(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """Return the match of *pattern* in what was printed, as soon as there is one."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            assert self._more(deadline), f"{pattern!r} is not in {self.seen!r}"
        return match

    def end(self) -> int:
        """Return the exit status; all that was printed is in `seen`."""
        status = self.process.wait(20)
        while self._more(time.monotonic() + 0.2):
            pass
        os.close(self.master)
        return status

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self.master, 65536) if ready else b""
        except OSError:  # nobody has the terminal open any more
            data = b""
        self.seen += data.decode()
        return bool(data)
