"""imgfs diff: compare two images, without a mount: files, configuration, packages."""

import argparse
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fusefs.cli.opening import opening, split_path
from fusefs.cli.output.differences import config_lines, directory_lines, package_lines, summary, write_difference
from fusefs.cli.output.files import kind_of
from fusefs.cli.output.stdout import BOLD, Output, clipped
from fusefs.cli.output.steps import instruction
from fusefs.comparison.config import ConfigChange, config_changes
from fusefs.comparison.images import Sides, side_of, sides_of_layer
from fusefs.comparison.tally import Counts, Tally
from fusefs.comparison.unified import Hunks, unified
from fusefs.errors import UsageError
from fusefs.image.inspection import inspect
from fusefs.image.opened import Opened
from fusefs.layers.diff import Difference, compare
from fusefs.log import logger
from fusefs.packages.installed import PackageChange, package_changes
from fusefs.sources.argument import public_name
from fusefs.tree.node import Stat
from fusefs.tree.walk import found_at

log = logger(__name__)

_DIFFER = 1
"""The exit code for images that differ, as in diff(1) and git."""
_DEPTH = 2
"""Directories that ``--stat`` shows."""


class _Shown(NamedTuple):
    """The parts that are compared and shown."""

    config: bool
    packages: bool
    files: bool


class _Compared:
    """What is compared: two images, or a layer of one."""

    def __init__(self, arguments: argparse.Namespace, open_image: Callable[[str], Opened]) -> None:
        """Open the images."""
        self.layer: int | None = arguments.layer
        self._names = [split_path(argument) for argument in (arguments.image, arguments.other) if argument is not None]
        self.opened = [open_image(name) for name, _ in self._names]
        self.has_path = any(path is not None for _, path in self._names)

    @property
    def heading(self) -> str:
        """The layer that is compared, in a line."""
        assert self.layer is not None
        layers = inspect(self.opened[0].image).layers
        return f"layer {self.layer} of {len(layers)}  {instruction(layers[self.layer].step)}".rstrip()

    def config(self) -> list[ConfigChange]:
        """Return the differences of the configurations."""
        old, new = (inspect(opened.image) for opened in self.opened)
        return [*config_changes(old, new)]

    def sides(self) -> Sides:
        """Return the root file systems."""
        name, path = self._names[0]
        if self.layer is not None:
            return sides_of_layer(
                self.opened[0], self.layer, lambda tree: found_at(tree, path or b"/", public_name(name), follow=True)
            )
        trees = [opened.rootfs() for opened in self.opened]
        return Sides(
            *(
                side_of(opened, tree, found_at(tree, path or b"/", public_name(name), follow=True))
                for opened, tree, (name, path) in zip(self.opened, trees, self._names, strict=True)
            )
        )

    def packages(self, sides: Sides) -> list[PackageChange]:
        """Return the packages that differ."""
        old, new = sides.packages()
        if not (old or new):
            log.warning("there are no packages of dpkg, apk or rpm to compare")
        return [*package_changes(old, new)]


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Open what is compared and show the differences; return the exit code."""
    _check(arguments)
    output = Output(environment)
    with opening(arguments, environment) as open_image:
        compared = _Compared(arguments, open_image)
        shown = _shown(arguments, compared)
        show = _show_json if arguments.json else _show
        differ = show(compared, shown, arguments, output)
    output.finish()
    return _DIFFER if differ and arguments.exit_code else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.layer is None and arguments.other is None:
        raise UsageError("give two images to compare, or one and --layer N; see imgfs diff --help")
    if arguments.layer is not None and arguments.other is not None:
        raise UsageError("--layer compares a layer of one image with those below it; give one IMAGE")
    for name, excluded in (("config", arguments.layer is not None), ("unified", arguments.stat)):
        if excluded and getattr(arguments, name):
            raise UsageError(f"--{'layer' if name == 'config' else 'stat'} and --{name} exclude each other")
    if arguments.max_depth is not None and not arguments.stat:
        raise UsageError("--max-depth needs --stat")


def _shown(arguments: argparse.Namespace, compared: _Compared) -> _Shown:
    """Return the parts to show: those that are asked for, else files, and of whole images the configuration."""
    asked = arguments.config or arguments.packages
    whole = compared.layer is None and not compared.has_path
    return _Shown(
        config=arguments.config or (whole and not asked),
        packages=arguments.packages,
        files=arguments.unified or arguments.stat or not asked,
    )


def _show_json(compared: _Compared, shown: _Shown, arguments: argparse.Namespace, output: Output) -> bool:
    config = compared.config() if shown.config else None
    sides = compared.sides() if shown.packages or shown.files else None
    packages = compared.packages(sides) if sides and shown.packages else None
    tally = Tally(_depth(arguments))

    def members() -> Iterator[tuple[str, Any]]:
        yield "config", None if config is None else [*map(_config_json, config)]
        yield "packages", None if packages is None else [*map(_package_json, packages)]
        files = _counted(sides, tally, arguments) if sides and shown.files else None
        if files is not None and arguments.stat:
            _exhaust(files)
        whole = files is not None and sides is not None and not arguments.stat
        yield "files", (_json(each, sides, arguments) for each in files or () if sides) if whole else None
        yield "directories", [*map(_directory_json, tally.directories)] if arguments.stat else None
        yield "summary", _counts_json(tally.total) if shown.files else None

    output.json_object(members())
    return bool(config or packages or tally.total.paths)


def _show(compared: _Compared, shown: _Shown, arguments: argparse.Namespace, output: Output) -> bool:
    """Write the parts, with an empty line between two; return whether anything differs."""
    sides = compared.sides() if shown.packages or shown.files else None  # raises if there is no such layer
    parts = _Parts(output)
    if compared.layer is not None:
        parts.line(output.styled(clipped(compared.heading, output.columns), BOLD))
    if shown.config:
        parts.write(config_lines(compared.config(), output))
    if sides and shown.packages:
        parts.write(package_lines(compared.packages(sides), output))
    if sides and shown.files:
        _show_files(sides, parts, arguments, output)
    return parts.differ


def _show_files(sides: Sides, parts: "_Parts", arguments: argparse.Namespace, output: Output) -> None:
    tally = Tally(_depth(arguments))
    differences = _counted(sides, tally, arguments)
    if arguments.stat:
        _exhaust(differences)
        parts.write(directory_lines(tally, output))
    else:
        human, lines = arguments.human_readable, arguments.unified
        parts.write_each(lambda each: write_difference(each, sides, output, human=human, lines=lines), differences)
    if tally.total.paths:
        parts.write([summary(tally.total)])


def _exhaust(differences: Iterator[Difference]) -> None:
    for _ in differences:
        pass


class _Parts:
    """Parts of the output with an empty line between two."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.differ = False
        """Whether there was a part, besides the heading."""
        self._begun = False

    def line(self, text: str) -> None:
        """Write a heading."""
        self._output.line(text)
        self._begun = True

    def write(self, lines: Iterable[str]) -> None:
        """Write a part of lines."""
        self.write_each(self._output.line, lines)

    def write_each(self, write: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Write a part with a function for each item."""
        for number, item in enumerate(items):
            if number == 0 and self._begun:
                self._output.line()
            self._begun = self.differ = True
            write(item)


def _depth(arguments: argparse.Namespace) -> int | None:
    if not arguments.stat:
        return None
    return _DEPTH if arguments.max_depth is None else int(arguments.max_depth)


def _counted(sides: Sides, tally: Tally, arguments: argparse.Namespace) -> Iterator[Difference]:
    for difference in compare(*sides, times=arguments.times):
        tally.add(difference)
        yield difference


def _json(difference: Difference, sides: Sides, arguments: argparse.Namespace) -> dict[str, Any]:
    document = {
        "path": os.fsdecode(b"/" + b"/".join(difference.path)),
        "change": difference.change.name.lower(),
        "what": [*difference.what],
        "before": _side_json(difference.before),
        "after": _side_json(difference.after),
    }
    return document | {"diff": _unified_json(unified(difference, *sides))} if arguments.unified else document


def _unified_json(hunks: Hunks | str) -> str | None:
    if isinstance(hunks, str):
        return f"{hunks}\n" if hunks else None
    names = "".join(f"{name}\n" for name in hunks.names)
    return names + b"".join(hunks.lines).decode("utf-8", "surrogateescape")


def _side_json(status: Stat | None) -> dict[str, Any] | None:
    if status is None:
        return None
    mode = f"{stat.S_IMODE(status.mode):04o}"
    return {"type": kind_of(status.mode), "size": status.size, "mode": mode, "uid": status.uid, "gid": status.gid}


def _config_json(found: ConfigChange) -> dict[str, Any]:
    change = found.change.name.lower()
    return {
        "property": found.key,
        "name": found.name or None,
        "change": change,
        "before": found.before,
        "after": found.after,
    }


def _package_json(found: PackageChange) -> dict[str, Any]:
    return {
        "type": found.kind,
        "name": found.name,
        "change": found.change,
        "before": [*found.before],
        "after": [*found.after],
    }


def _directory_json(found: tuple[tuple[bytes, ...], Counts]) -> dict[str, Any]:
    path, counts = found
    return {"path": os.fsdecode(b"/" + b"/".join(path))} | _counts_json(counts)


def _counts_json(counts: Counts) -> dict[str, Any]:
    return counts._asdict()
