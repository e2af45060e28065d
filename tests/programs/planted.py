"""The command with a fault planted in it: ``python planted.py FAULT ARGUMENT… `` of imgfs.

Faults: ``crash`` makes every read of a layer a bug; ``slow-start=FIFO`` lets the mount become ready
only once FIFO can be read; ``note=FILE`` is none: a line in FILE for each layer that is decompressed
or indexed, and each listing of a large directory.  ``kill=NUMBER=FILE`` kills the process in the place of
the NUMBER-th change of a name or fsync, and writes into FILE which that was.  ``swap=DIRECTORY=OTHER`` puts a link
to OTHER in the place of DIRECTORY as soon as the table of mounts was read.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from fusefs.cli import main
from fusefs.content.file import Extent


def _crash(_self: Extent, offset: int, _size: int, _buffer: memoryview | None = None) -> NoReturn:
    raise ZeroDivisionError(f"planted at {offset}")


def _start_slowly(fifo: str) -> None:
    from fusefs.mount.mountinfo import Mount  # noqa: PLC0415 - only this fault wants these
    from fusefs.mount.trial import Trial  # noqa: PLC0415

    run = Trial.run

    async def run_slowly(self: Trial, mount: Mount, *, listed: bool) -> None:
        Path(fifo).read_bytes()  # noqa: ASYNC240 - nothing is served yet
        await run(self, mount, listed=listed)

    Trial.run = run_slowly  # type: ignore[method-assign]


def _note(path: str) -> None:
    from fusefs.image import lazy_layers  # noqa: PLC0415
    from fusefs.layers import indexer, rootfs  # noqa: PLC0415

    def noting(word: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            with open(path, "a", encoding="ascii") as file:
                file.write(f"{word}\n")
            return function(*arguments)

        return noted

    for word, module, name in (
        ("index", indexer, "index_scanned"),
        ("decompress", lazy_layers, "uncompressed_tar"),
        ("list", rootfs, "LongListing"),
    ):
        setattr(module, name, noting(word, getattr(module, name)))


def _kill(number: int, path: str) -> None:
    changes = {"os.link", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.fsync"}
    left = count(number, -1)

    def hook(event: str, _arguments: object) -> None:
        if event in changes and next(left) == 1:
            Path(path).write_text(event, encoding="ascii")
            os.kill(os.getpid(), signal.SIGKILL)

    real = os.fsync

    def fsync(file: int) -> None:
        hook("os.fsync", ())  # for which Python has no event
        real(file)

    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def swap(directory: str, other: str) -> None:
    """Put a link to *other* in the place of *directory*."""
    os.rename(directory, f"{directory}.moved")
    os.symlink(other, directory)


def _swap_after_table(directory: str, other: str) -> None:
    from fusefs.mount import mountinfo  # noqa: PLC0415

    real = mountinfo.parsed

    def parsed(table: bytes) -> Iterator[mountinfo.Mount]:
        if not os.path.islink(directory):
            swap(directory, other)
        return real(table)

    mountinfo.parsed = parsed


def plant(fault: str) -> None:
    """Plant *fault*."""
    name, _, argument = fault.partition("=")
    match name:
        case "crash":
            Extent.read_cached = _crash  # type: ignore[method-assign, assignment]
        case "slow-start":
            _start_slowly(argument)
        case "note":
            _note(argument)
        case "kill":
            number, _, path = argument.partition("=")
            _kill(int(number), path)
        case "swap":
            _swap_after_table(*argument.split("="))
        case _:
            raise ValueError(fault)


if __name__ == "__main__":
    plant(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
