"""Clients of a mount whose disk does not answer: ``python -m tests.programs.waiting_clients blocked|hot FILE NUMBER``.

*blocked* reads at NUMBER places at once, each in a thread, and prints the digest of what it got.  *hot* reads
FILE for NUMBER seconds, never from the mount's own page cache, and prints how long that took.
"""

import hashlib
import json
import os
import random
import statistics
import sys
import threading
import time

READ = 512
"""Bytes that are read at a place."""
_AWAY = 4 << 20
"""More bytes than any disk reads ahead."""


def places(size: int, count: int) -> list[int]:
    """Return where *count* threads read: each in pages of its own, and far from both ends, which may be in memory."""
    return [_AWAY + number * ((size - 2 * _AWAY) // count) & ~4095 for number in range(count)]


def blocked(path: str, count: int) -> None:
    """Read everywhere at once."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    found: dict[int, bytes] = {}

    def read(place: int) -> None:
        found[place] = os.pread(file, READ, place)

    threading.stack_size(1 << 17)
    threads = [threading.Thread(target=read, args=(place,)) for place in places(os.fstat(file).st_size, count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(hashlib.sha256(b"".join(data for _, data in sorted(found.items()))).hexdigest())


def hot(path: str, seconds: float) -> None:
    """Read small and large pieces, and look at names, one after the other."""
    rng = random.Random(1)
    file = os.open(path, os.O_RDONLY)
    size = os.fstat(file).st_size
    took: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        piece = rng.choice((4096, 1 << 17, 1 << 20))
        began = time.monotonic()
        os.pread(file, piece, rng.randrange(size - piece))
        os.path.lexists(f"{path}-{len(took)}")  # a name that is not there, asked for once
        took.append(time.monotonic() - began)
    print(json.dumps({"count": len(took), "median": statistics.median(took), "slowest": max(took)}))


if __name__ == "__main__":
    {"blocked": blocked, "hot": hot}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
