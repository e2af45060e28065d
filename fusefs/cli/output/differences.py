"""Differences of two images, in lines for people."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from fusefs.cli.output.files import kind_of
from fusefs.cli.output.stdout import BOLD, CYAN, GREEN, RED, YELLOW, Output, clipped, human_size
from fusefs.cli.output.tables import cut_beginning, cut_end, lines_of, table
from fusefs.comparison.config import ConfigChange
from fusefs.comparison.images import Sides
from fusefs.comparison.tally import Counts, Tally
from fusefs.comparison.unified import Hunks, unified
from fusefs.layers.diff import Change, Difference
from fusefs.oci.times import rfc3339
from fusefs.packages.installed import PackageChange
from fusefs.text import printable
from fusefs.tree.node import Stat, Symlink

_STYLES = {Change.ADDED: GREEN, Change.REMOVED: RED, Change.CHANGED: YELLOW}
_WORDS = {Change.ADDED: "added", Change.REMOVED: "deleted", Change.CHANGED: "changed"}
_MARKS = {ord("-"): RED, ord("+"): GREEN, ord("@"): CYAN}
"""Styles of the lines of a unified diff."""
_PROPERTIES = {
    "platform": "Platform",
    "entrypoint": "Entrypoint",
    "cmd": "Command",
    "shell": "Shell",
    "healthcheck": "Healthcheck",
    "workingDir": "Directory",
    "user": "User",
    "stopSignal": "Stop signal",
    "onBuild": "On build",
    "env": "Environment",
    "exposedPorts": "Port",
    "volumes": "Volume",
    "labels": "Label",
}
"""Names of properties, as `imgfs inspect` shows them."""


def config_lines(changes: Iterable[ConfigChange], output: Output) -> Iterator[str]:
    """Yield a line for each change; on a terminal that is too narrow, the values in lines of their own."""
    for found in changes:
        words = [_PROPERTIES[found.key], *filter(None, [printable(found.name)])]
        values = [_value(value) for value in (found.before, found.after) if value is not None]
        head, shown = "  ".join(words), " → ".join(filter(None, values))
        if output.columns is None or len(head) + len(shown) + len("A   ") <= output.columns:
            yield f"{_letter(found.change, output)} {head}  {shown}".rstrip()
            continue
        yield f"{_letter(found.change, output)} {clipped(head, output.columns - 2)}"
        for mark, value in (("-", found.before), ("+", found.after)):
            if value is not None:
                lines = lines_of(_value(value), max(output.columns - len("  - "), 1))
                marked = [f"  {' ' if number else mark} {line}" for number, line in enumerate(lines)]
                yield from (output.styled(line, _MARKS[ord(mark)]) for line in marked)


def _value(value: Any) -> str:
    if isinstance(value, dict):  # a health check, of which 0 is the engine's default
        value = {key: part for key, part in value.items() if part}
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _letter(change: Change, output: Output) -> str:
    return output.styled(change.value, _STYLES[change])


def package_lines(changes: Iterable[PackageChange], output: Output) -> Iterator[str]:
    """Yield a table of the packages that differ."""
    rows: list[tuple[str, ...]] = [("", "PACKAGE", "BEFORE", "AFTER")]
    rows += [
        (
            Change[found.change.upper()].value,
            *map(printable, (found.name, ", ".join(found.before) or "-")),
            _versions(found.after),
        )
        for found in changes
    ]
    if len(rows) == 1:
        return
    header, *lines = table(rows, (), output.columns, {1: cut_end, 2: cut_end, 3: cut_end})
    yield output.styled(header, BOLD)
    for line in lines:
        yield _letter(Change(line[0]), output) + line[1:]


def _versions(versions: Iterable[str]) -> str:
    return printable(", ".join(versions)) or "-"


def directory_lines(tally: Tally, output: Output) -> Iterator[str]:
    """Yield a table of the directories with files that differ."""
    directories = tally.directories
    if not directories:
        return
    words = "ADC" if output.narrow else ("ADDED", "DELETED", "CHANGED")
    rows: list[tuple[str, ...]] = [(*words, "SIZE", "DIRECTORY")]
    for path, counts in directories:
        numbers = (str(count or "") for count in counts[:3])
        rows.append((*numbers, _signed(counts.size), printable(_slashed(path))))
    header, *lines = table(rows, (0, 1, 2, 3), output.columns, {4: cut_beginning})
    yield output.styled(header, BOLD)
    yield from lines


def _slashed(path: tuple[bytes, ...]) -> bytes:
    return b"/" + b"".join(name + b"/" for name in path)


def _signed(size: int) -> str:
    return human_size(0) if not size else f"{'-' if size < 0 else '+'}{human_size(abs(size))}"


def summary(counts: Counts) -> str:
    """Return the numbers of files that differ in a line."""
    numbers = {Change.ADDED: counts.added, Change.REMOVED: counts.removed, Change.CHANGED: counts.changed}
    words = [f"{count} {_WORDS[change]}" for change, count in numbers.items() if count]
    return ", ".join([*words, _signed(counts.size)])


def write_difference(difference: Difference, sides: Sides, output: Output, *, human: bool, lines: bool) -> None:
    """Write a difference of files in a line; *lines*: and those lines of the files that differ."""
    before, after = (output.size(_size(side), human=human) for side in (difference.before, difference.after))
    path = b"/" + b"/".join(difference.path)
    status = difference.after or difference.before
    assert status is not None
    slash = "/" if stat.S_ISDIR(status.mode) and difference.path else ""
    what = f"  ({', '.join(_what(difference, sides))})" if difference.what else ""
    output.line(f"{_letter(difference.change, output)} {before} {after}  {printable(path)}{slash}{what}")
    if lines:
        _write_unified(unified(difference, *sides), output)


def _write_unified(hunks: Hunks | str, output: Output) -> None:
    if isinstance(hunks, str):
        if hunks:
            output.line(hunks)
        return
    for name in hunks.names:
        output.line(output.styled(name, BOLD))
    for line in hunks.lines:
        if not output.terminal:
            output.raw(line)
            continue
        text = line.decode("utf-8", "surrogateescape").removesuffix("\n")
        style = _MARKS.get(line[0])
        output.line(output.styled(_plain(text), style) if style else _plain(text))


def _plain(text: str) -> str:
    return "".join(char if char == "\t" else printable(char) for char in text)


def _size(status: Stat | None) -> int | None:
    return status.size if status is not None and (stat.S_ISREG(status.mode) or stat.S_ISLNK(status.mode)) else None


def _what(difference: Difference, sides: Sides) -> Iterator[str]:
    """Yield the properties that changed, with their values if they are short: ``mode 0644 → 0600``."""
    before, after = difference.before, difference.after
    assert before is not None
    assert after is not None
    for name in difference.what:
        values = [_property(name, status) for status in (before, after)]
        if name == "target":
            values = [printable(target) for target in _targets(difference, sides)]
        yield name + (f" {values[0]} → {values[1]}" if all(values) else "")


def _property(name: str, status: Stat) -> str:
    match name:
        case "mode":
            return f"{stat.S_IMODE(status.mode):04o}"
        case "owner":
            return f"{status.uid}:{status.gid}"
        case "type":
            return kind_of(status.mode)
        case "device":
            return f"{os.major(status.rdev)}:{os.minor(status.rdev)}"
        case "time":
            return rfc3339(status.mtime_ns) or str(status.mtime_ns // 10**9)
        case _:
            return ""


def _targets(difference: Difference, sides: Sides) -> Iterator[bytes]:
    for side, number in zip(sides, (difference.old, difference.new), strict=True):
        node = None if side is None or number is None else side.tree.node(number)
        if isinstance(node, Symlink):
            yield node.target
