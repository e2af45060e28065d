"""Looks at the files of a folder: looker FOLDER ROUNDS.

Each round stats all of them and reads one.  After so many rounds it prints a line and goes on; after a line of input
it does so many more.  Then it prints the number of devices that the files were on, and the numbers of stats and of
reads.  Ends with a traceback at the first error or other content.
"""

import os
import select
import sys
from itertools import count
from pathlib import Path


def main() -> None:
    """Look."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    files = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    devices, end = set(), None
    for number in count():
        if number == rounds:
            print("looking", flush=True)
        if number == end:
            break
        if end is None and number >= rounds and select.select([sys.stdin], [], [], 0)[0]:
            end = number + rounds
        for path, data in files.items():
            status = os.stat(path)
            assert status.st_size == len(data)
            devices.add(status.st_dev)
        path = list(files)[number % len(files)]
        assert path.read_bytes() == files[path]
    print(len(devices), number * len(files), number)


if __name__ == "__main__":
    main()
