"""Binds loop devices to an open file and holds them: loop_binder FILE COUNT; ends with its input."""

import os
import sys

from fusefs.mount.kernel.loop import bind_loop_device


def main() -> None:
    """Print the names of the devices, then wait."""
    file, count = map(int, sys.argv[1:])
    names = []
    for _ in range(count):
        device = bind_loop_device(file)
        names.append(os.path.basename(os.readlink(f"/sys/dev/block/7:{os.minor(os.fstat(device).st_rdev)}")))
    print(*names, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
