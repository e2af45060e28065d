"""An archive on a file system of ours that answers when it is told to."""

import queue
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.mounts import Bench
from tests.support.processes import mounts_at

ABORTED = ("Transport endpoint is not connected", "Software caused connection abort")
"""What those are told who waited when a mount ended."""

_PATIENCE = 20
"""Seconds after which what is waited for does not happen."""


class SlowFile:
    """A file whose reads can be made to wait, or to fail."""

    def __init__(self, imgfs: Bench, data: bytes) -> None:
        """Show *data* as a file; everything passes at first."""
        self._imgfs = imgfs
        self._folder = imgfs.mountpoint("slow")
        self.path = self._folder / "file"
        source = imgfs.folder / "image.tar"
        source.write_bytes(data)
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).parents[1] / "programs" / "slow_file.py", source, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._heard: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        self.hear("ready")

    def hear(self, word: str) -> None:
        """Wait for *word*."""
        assert self._heard.get(timeout=_PATIENCE) == f"{word}\n"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard.put(line)

    def hold(self) -> None:
        """Let reads wait from now on."""
        self._say("hold")
        self.hear("holding")

    def fail(self) -> None:
        """Let reads fail from now on, as those of a broken disk."""
        self._say("break")
        self.hear("broken")

    def mend(self) -> None:
        """Let them be read again; returns once they can be."""
        self._say("mend")
        self.hear("mended")

    def go(self) -> None:
        """Let them pass."""
        self._say("go")

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")

    def end(self) -> None:
        """Let everything pass, and unmount what is mounted from it and then itself."""
        self.go()
        for mount in mounts_at(self._imgfs.folder / "mnt"):
            subprocess.run(["umount", "-l", mount.path], check=True)
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            assert self._process.wait(10) == 0
            self._listener.join()
        assert mounts_at(self._folder) == []
