"""imgfs report: a page about an image, or about two and what differs."""

import argparse
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fusefs import __version__
from fusefs.cli.opening import opening
from fusefs.cli.output.stdout import Output, human_size
from fusefs.cli.output.steps import instruction
from fusefs.errors import NoSpace, UsageError
from fusefs.report.data import difference_data, image_data
from fusefs.report.page import page
from fusefs.sources.argument import public_name
from fusefs.text import printable

_STDOUT = "-"


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the images and write the page."""
    output = Output(environment)
    _check(arguments, output)
    names = [name for name in (arguments.image, arguments.other) if name is not None]
    with opening(arguments, environment) as open_image:
        images = [open_image(name) for name in names]
        data: dict[str, Any] = {
            "generator": f"imgfs {__version__}",
            "images": [image_data(opened, instruction) for opened in images],
            "differences": difference_data(*images) if len(images) == 2 else None,
        }
    if arguments.json:
        output.json(data)
    else:
        text = page(f"{' → '.join(printable(public_name(name)) for name in names)} – imgfs report", data).encode()
        if arguments.output == _STDOUT:
            output.raw(text)
        else:
            _write(arguments.output, text)
            if not arguments.quiet:
                output.line(f"wrote {printable(arguments.output)}: {human_size(len(text))}")
    output.finish()


def _check(arguments: argparse.Namespace, output: Output) -> None:
    if arguments.json:
        if arguments.output is not None:
            raise UsageError("-o and --json exclude each other: --json writes to standard output")
    elif arguments.output is None:
        raise UsageError("-o is missing; use -o report.html")
    elif arguments.output == _STDOUT and output.terminal:
        raise UsageError("a page is not written to a terminal; use -o report.html")


def _write(path: str, text: bytes) -> None:
    """Write the file, all of it or nothing; what is no regular file, such as a pipe, is written to as it is."""
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(path).st_mode):
                with open(path, "wb") as file:
                    file.write(text)
                return
        path = os.path.realpath(path)
        new = f"{path}.{os.getpid()}.tmp"
        try:
            with open(new, "xb") as file:
                file.write(text)
            os.replace(new, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
    except OSError as error:
        raise NoSpace(f"cannot write {printable(path)}: {error.strerror}") from None
