"""Looks at the files of a folder: looker FOLDER ROUNDS.

Each round stats all of them and reads one.  Prints a line after half of the rounds, and in the end the devices that
the files were on, the number of stats and of reads.  Ends with a traceback at the first error or other content.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    """Look."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    files = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    devices, stats = set(), 0
    for number in range(rounds):
        if number == rounds // 2:
            print("half", flush=True)
        for path, data in files.items():
            status = os.stat(path)
            assert status.st_size == len(data)
            devices.add(status.st_dev)
            stats += 1
        path = list(files)[number % len(files)]
        assert path.read_bytes() == files[path]
    print(len(devices), stats, rounds)


if __name__ == "__main__":
    main()
