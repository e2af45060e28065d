"""Unified diffs of files of two root file systems."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.comparison.unified import Hunks, _hunks, _split, unified
from fusefs.layers.diff import compare
from tests.support.changesets import About, all_indexed, changeset, file, symlink
from tests.support.trees import side

TEXTS = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n"]), max_size=30).map(b"".join)
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n")


def _patched(old: bytes, diff: bytes) -> bytes:
    """Apply a unified diff, as patch(1) does without fuzz."""
    olds, result, at = _split(old), [], 0
    lines = re.sub(rb"\n\\ No newline at end of file\n", b"\n\\\\\n", diff).split(b"\n")[:-1]
    for number, line in enumerate(lines):
        if match := _HUNK.fullmatch(line + b"\n"):
            begin, count = int(match[1]), int(match[2] or 1)
            begin -= count > 0
            result += olds[at:begin]
            at = begin
            continue
        newline = b"" if lines[number + 1 : number + 2] == [b"\\"] else b"\n"
        if line[:1] in b" -" and line:
            assert olds[at] == line[1:] + newline
            at += 1
        if line[:1] in b" +" and line:
            result.append(line[1:] + newline)
    return b"".join([*result, *olds[at:]])


@given(TEXTS, TEXTS)
def test_a_diff_turns_one_text_into_the_other(old: bytes, new: bytes) -> None:
    for one, other in ((old, new), (old + b"z", new), (old, new + b"z"), (old + b"z", new + b"y")):
        diff = b"".join(_hunks(_split(one), _split(other)))
        assert _patched(one, diff) == other
        assert bool(diff) == (one != other)


def test_a_hunk_has_three_lines_around_what_differs() -> None:
    old = [b"%d\n" % number for number in range(1, 31)]
    new = [*old[:4], b"five\n", *old[5:11], b"12b\n", *old[11:29], b"30"]
    assert b"".join(_hunks(old, new)).decode().splitlines() == [
        *("@@ -2,13 +2,14 @@", " 2", " 3", " 4", "-5", "+five", *(f" {number}" for number in range(6, 12))),
        *("+12b", " 12", " 13", " 14"),
        *("@@ -27,4 +28,4 @@", " 27", " 28", " 29", "-30", "+30", "\\ No newline at end of file"),
    ]


def _shown(old: Sequence[bytes], new: Sequence[bytes]) -> list[str]:
    """Return what is shown of each difference."""
    with all_indexed(old) as olds, all_indexed(new) as news:
        sides = side(olds, old), side(news, new)
        shown = []
        for difference in compare(*sides):
            found = unified(difference, *sides)
            shown.append("\n".join(found.names) if isinstance(found, Hunks) else found)
        return shown


def test_what_has_no_lines_to_show_is_told() -> None:
    old = changeset(
        file("binary", b"\0"), file("gone", b"x"), file("large", b"x" * (5 << 20)), file("lines", b"\n" * 100_002),
        file("mode", b"m"), symlink("target", "a"), file("text", b"x"), file("type", b"t"),
    )  # fmt: skip
    new = changeset(
        file("binary", b"\1"), file("empty", b""), file("large", b"y" * (5 << 20)), file("lines", b"\n" * 100_001),
        file("mode", b"m", About(mode=0o600)), symlink("target", "b"), file("text", b"y"), symlink("type", "t"),
    )  # fmt: skip
    assert _shown([old], [new]) == [
        "Binary files a/binary and b/binary differ",
        "",
        "--- a/gone\n+++ /dev/null",
        "Files a/large and b/large differ",
        "Files a/lines and b/lines differ",
        *("", ""),
        "--- a/text\n+++ b/text",
        "",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a b", "b/a b"),
        ("\u00e9".encode(), "b/\u00e9"),
        (b'a"\\', r'"b/a\"\\"'),
        (b"\x1b[31m\n\t\xff", r'"b/\033[31m\n\t\377"'),
        ("\u202e".encode(), r'"b/\342\200\256"'),
    ],
)
def test_names_are_quoted_as_git_does(name: bytes, shown: str) -> None:
    assert _shown([changeset()], [changeset(file(name, b"x"))]) == [f"--- /dev/null\n+++ {shown}"]
