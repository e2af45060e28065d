"""imgfs cp: copy files of an image to the host, or into a tar, without a mount."""

import argparse
import os
from collections.abc import Mapping
from typing import Any

from fusefs.cli.opening import image_and_paths, opening, split_path
from fusefs.cli.output.stdout import Output, human_size, say
from fusefs.cli.stopping import ended_by_signals
from fusefs.copying.copied import Copied
from fusefs.copying.host import copy_to_host
from fusefs.copying.source import Source
from fusefs.copying.tarball import Tarball
from fusefs.errors import NoSpace, UsageError
from fusefs.image.opened import Opened
from fusefs.text import printable, quoted

STDOUT = "-"
"""The destination that is a tar on standard output."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Open the image and copy what the paths name."""
    output = Output(environment)
    *words, destination = arguments.paths
    name, paths = image_and_paths(arguments.image, words)
    _check(name, paths, destination)
    if destination == STDOUT:
        _check_stdout(output, arguments, paths)
    with opening(arguments, environment) as open_image, ended_by_signals():
        opened = open_image(name)
        sources = [opened.source(path, layer=arguments.layer, follow=arguments.follow_link) for path in paths]
        if destination == STDOUT:
            copied = [_written(sources[0], output)]
        else:
            if len(sources) > 1 and not os.path.isdir(destination):
                raise NoSpace(f"cannot write {printable(destination)}: it is not a directory, for {len(paths)} files")
            copied = [_copied(opened, source, destination) for source in sources]
    for one in copied:
        if one.skipped:
            say(f"warning: skipped {_counted(one.skipped, 'file')}: {one.why_skipped}")
        if one.path and not (arguments.json or arguments.quiet):
            files = _counted(one.files + one.links + one.others, "file")
            output.line(f"copied {files}, {human_size(one.size)}, to {printable(one.path)}")
    if arguments.json:
        output.json([_json(source, one) for source, one in zip(sources, copied, strict=True)])
    output.finish()


def _check(name: str, paths: list[bytes], destination: str) -> None:
    if not paths:
        if split_path(destination)[1] is not None and not destination.startswith(("/", ".")):
            raise UsageError(f"images are read-only: nothing can be copied to {printable(destination)}")
        raise UsageError(f"PATH is missing; use imgfs cp {quoted(name)}:/PATH {quoted(destination)}")
    if not destination:
        raise UsageError("DEST is empty")


def _check_stdout(output: Output, arguments: argparse.Namespace, paths: list[bytes]) -> None:
    if output.terminal:
        raise UsageError("a tar is not written to a terminal; redirect standard output, or pipe it into tar")
    if arguments.json:
        raise UsageError("- and --json exclude each other: both write to standard output")
    if len(paths) > 1:
        raise UsageError(f"- takes one PATH, not {len(paths)}")


def _copied(opened: Opened, source: Source, destination: str) -> Copied:
    with opened.progress.transfer(f"copying {printable(source.top.path)}", None) as advance:
        return copy_to_host(source, destination, advance)


def _written(source: Source, output: Output) -> Copied:
    tarball = Tarball(source)
    for part in tarball.parts():
        output.raw(part)
    return tarball.copied


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _json(source: Source, copied: Copied) -> dict[str, Any]:
    return {
        "path": os.fsdecode(source.top.path),
        "destination": copied.path,
        "files": copied.files,
        "directories": copied.directories,
        "symlinks": copied.links,
        "others": copied.others,
        "size": copied.size,
        "skipped": copied.skipped,
    }
