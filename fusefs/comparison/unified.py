"""The difference of two files as a unified diff, which diff(1) and git print and patch(1) reads."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fusefs.comparison.matching import Run, common_runs
from fusefs.content.protocol import Content
from fusefs.layers.diff import Change, Difference, Side
from fusefs.tree.node import RegularFile

_CONTEXT = 3
"""Lines that are the same, before and after those that differ."""
_MAX_SIZE = 4 << 20
_MAX_LINES = 100_000
"""Bytes and lines of a file that is compared line by line."""
_ESCAPES = {ord("\a"): "a", ord("\b"): "b", ord("\t"): "t", ord("\n"): "n", ord("\v"): "v", ord("\f"): "f"} | {
    ord("\r"): "r",
    ord('"'): '"',
    ord("\\"): "\\",
}


class Hunks(NamedTuple):
    """The lines of a unified diff, each with the newline of the file."""

    names: tuple[str, str]
    """``--- …`` and ``+++ …``, printable."""
    lines: Iterable[bytes]
    """``@@ … @@``, and then lines of the files."""


def unified(difference: Difference, old: Side | None, new: Side) -> Hunks | str:
    """Return the unified diff of a difference, or one line that says why there is none; empty if there are no bytes."""
    before, after = _content(old, difference.old), _content(new, difference.new)
    contents = [content for content in (before, after) if content is not None]
    if not contents or (difference.change is Change.CHANGED and "content" not in difference.what):
        return ""
    path = b"/".join(difference.path)
    names = _name(b"a/", path, before), _name(b"b/", path, after)
    kind = "Files"
    if max(content.size for content in contents) <= _MAX_SIZE:
        texts = [b"" if content is None else bytes(content.read_at(0, content.size)) for content in (before, after)]
        kind = "Binary files" if any(b"\0" in text for text in texts) else "Files"
        if kind == "Files" and max(text.count(b"\n") for text in texts) <= _MAX_LINES:
            lines = _hunks(*map(_split, texts))
            return Hunks((f"--- {names[0]}", f"+++ {names[1]}"), lines) if any(texts) else ""
    return f"{kind} {names[0]} and {names[1]} differ"


def _content(side: Side | None, number: int | None) -> Content | None:
    node = None if side is None or number is None else side.tree.node(number)
    return node.content if isinstance(node, RegularFile) else None


def _name(prefix: bytes, path: bytes, content: Content | None) -> str:
    """Return the name of a file as git writes it: in quotes if it has a character that could be misread."""
    if content is None:
        return "/dev/null"
    name = prefix + path
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and not {'"', "\\"} & set(text):
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if ord(char) in _ESCAPES:
        return f"\\{_ESCAPES[ord(char)]}"
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))


def _split(data: bytes) -> list[bytes]:
    """Return the lines of *data*, each with its newline."""
    lines = data.split(b"\n")
    last = lines.pop()
    return [*(line + b"\n" for line in lines), *([last] if last else [])]


class _Edit(NamedTuple):
    """Lines of the old text, from one number to another, that those of the new text replace."""

    old: int
    old_end: int
    new: int
    new_end: int


def _edits(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[_Edit]:
    at_old = at_new = 0
    for run in (*common_runs(old, new), Run(len(old), len(new), 0)):
        if run.old > at_old or run.new > at_new:
            yield _Edit(at_old, run.old, at_new, run.new)
        at_old, at_new = run.old + run.length, run.new + run.length


def _hunks(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[bytes]:
    hunk: list[_Edit] = []
    for edit in _edits(old, new):
        if hunk and edit.old - hunk[-1].old_end > 2 * _CONTEXT:
            yield from _hunk(hunk, old, new)
            hunk = []
        hunk.append(edit)
    if hunk:
        yield from _hunk(hunk, old, new)


def _hunk(edits: Sequence[_Edit], old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[bytes]:
    lead = min(edits[0].old, _CONTEXT)
    start, end = edits[0].old - lead, min(edits[-1].old_end + _CONTEXT, len(old))
    new_start = edits[0].new - lead
    new_end = edits[-1].new_end + end - edits[-1].old_end
    yield b"@@ -%b +%b @@\n" % (_span(start, end), _span(new_start, new_end))
    at = start
    for edit in edits:
        yield from _marked(b" ", old[at : edit.old])
        yield from _marked(b"-", old[edit.old : edit.old_end])
        yield from _marked(b"+", new[edit.new : edit.new_end])
        at = edit.old_end
    yield from _marked(b" ", old[at:end])


def _span(start: int, end: int) -> bytes:
    """Return the lines from *start* to *end* as a unified diff has them: counted from 1; none: the line before."""
    if end - start == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + (end > start), end - start)


def _marked(mark: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield mark + line
        if not line.endswith(b"\n"):
            yield b"\n\\ No newline at end of file\n"
