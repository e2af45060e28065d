"""The child process that indexes a large layer, whose tar its parent may still be writing."""

import os
import sys
import threading
from contextlib import suppress

from fusefs.content.file import OpenFile
from fusefs.content.growing import GrowingFile
from fusefs.errors import NO_ROOM, ImgfsError, NoSpace, limit_reached
from fusefs.layers.indexer import index_layer
from fusefs.text import printable


def main() -> int:
    """Index a layer: ``child TAR START INDEX CREATED_NS NAME``, files as open descriptors.

    Standard input has a report (`content.growing`) each time that the tar has grown.  Its end ends this process: the
    parent process has ended.  Warnings or an error go to standard output, a line each, then a line with the exit
    status.
    """
    status = _run()
    print(status, flush=True)
    return status


def _run() -> int:
    descriptor, start, index, created_ns = map(int, sys.argv[1:5])
    tar = GrowingFile(OpenFile(descriptor, sys.argv[5]), start)
    try:
        threading.Thread(target=_follow_parent, args=(tar,), daemon=True).start()
        _give_way()
        with open(index, "wb", closefd=False) as file:
            for warning in index_layer(tar, created_ns, file):
                print(printable(warning))
    except ImgfsError as error:
        print(printable(str(error)))
        return error.exit_code
    except (OSError, MemoryError, RuntimeError) as error:
        reached = limit_reached(error)
        if reached:
            print(reached)
            return reached.exit_code
        if not isinstance(error, OSError):
            raise
        print(error.strerror)
        return NoSpace.exit_code if error.errno in NO_ROOM else 1
    return 0


def _follow_parent(tar: GrowingFile) -> None:
    tar.follow(0)
    os._exit(1)


def _give_way() -> None:
    """Let readers of the mount go first, but not so far that the first access never ends on a busy machine."""
    with suppress(OSError):  # a sandbox may forbid this
        os.nice(5)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


if __name__ == "__main__":
    sys.exit(main())
