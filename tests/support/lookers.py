"""Processes that look at files all the time."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs import looker

_PROCESSES = 4


@contextmanager
def looked_at(folder: Path, stats: int) -> Iterator[None]:
    """Let processes stat and read the files in *folder* before, during and after the block, without an error.

    They do *stats* stats at least, and see the files on two devices: before the block and after it.
    """
    files = sum(path.is_file() for path in folder.iterdir())
    words = [sys.executable, looker.__file__, str(folder), str(-(-stats // _PROCESSES // files // 2))]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(_PROCESSES)]
    try:
        assert [process.stdout.readline() for process in processes if process.stdout] == ["looking\n"] * _PROCESSES
        yield
        counts = [[int(word) for word in process.communicate("\n")[0].split()] for process in processes]
        assert [process.returncode for process in processes] == [0] * _PROCESSES
        assert [devices for devices, _, _ in counts] == [2] * _PROCESSES
        assert sum(done for _, done, _ in counts) >= stats
    finally:
        for process in processes:
            process.kill()
            process.communicate()
