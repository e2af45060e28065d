"""The command with a fault planted in it: ``python planted.py FAULT ARGUMENT… `` of imgfs.

Faults: ``crash`` makes every read of a layer a bug; ``slow-start=FIFO`` lets the mount become ready
only once FIFO can be read; ``note=FILE`` is none: a line in FILE for each layer that is decompressed
or indexed.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fusefs.cli import main
from fusefs.content import Extent


def _crash(_self: Extent, offset: int, _size: int, _buffer: memoryview | None = None) -> NoReturn:
    message = f"planted at {offset}"
    raise ZeroDivisionError(message)


def _start_slowly(fifo: str) -> None:
    from fusefs.operations import Operations  # noqa: PLC0415 - only this fault wants it

    ready = Operations.init

    def init(self: Operations) -> None:
        Path(fifo).read_bytes()
        ready(self)

    Operations.init = init  # type: ignore[method-assign]


def _note(path: str) -> None:
    from fusefs import layers  # noqa: PLC0415

    names = vars(layers)

    def noting(word: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            with open(path, "a", encoding="ascii") as file:
                file.write(f"{word}\n")
            return function(*arguments)

        return noted

    for word, name in (("index", "index_layer"), ("decompress", "uncompressed_tar")):
        names[name] = noting(word, names[name])


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
        case _:
            raise ValueError(fault)


if __name__ == "__main__":
    plant(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
