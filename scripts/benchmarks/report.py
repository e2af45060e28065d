"""Results for people: a table for the terminal and for Markdown."""

import statistics
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.results import human

HEADINGS = ("#", "case", "what", "imgfs", "peer", "", "ratio", "target", "holds", "cold")
NARROW = ("#", "what", "imgfs", "peer", "", "ratio", "target", "cold")
BEGIN, END = "<!-- scripts/bench writes from here -->", "<!-- to here -->"


def table(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table, each a cell a heading."""
    return [_cells(row) for row in document["rows"]]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    unit, peer, target = row["unit"], row["peer"], row["target"]
    theirs = _span(row["peer_samples"], unit) if row["peer_samples"] else "not installed" if peer else ""
    text = target["text"] if target else ""
    return (
        str(row["number"]), row["case"], row["what"], _span(row["imgfs"], unit), peer or "", theirs,
        _compared(row), text, _holds(row), row["cold"],
    )  # fmt: skip


def _holds(row: dict[str, Any]) -> str:
    return {None: "", True: "yes", False: "NO"}[row["holds"]]


def _compared(row: dict[str, Any]) -> str:
    compared, kind = row["compared"], row["target"]["kind"] if row["target"] else "ratio"
    if not compared or kind == "value":
        return ""
    if kind == "difference":
        return f"+{_span(compared, row['unit'])}"
    return _span(compared, "")


def _span(numbers: dict[str, Any], unit: str) -> str:
    low, high = human(numbers["min"], unit), human(numbers["max"], unit)
    if unit and low.rpartition(" ")[2] == high.rpartition(" ")[2]:
        low = low.rpartition(" ")[0]
    return f"{human(statistics.median(numbers['samples']), unit)} ({low}–{high})"


def terminal(document: dict[str, Any]) -> str:
    """Return the table with columns aligned, the last one as notes below it."""
    notes = list(dict.fromkeys(row["cold"] for row in document["rows"]))
    lines: list[tuple[str, ...]] = [HEADINGS]
    lines += [(*cells[:-1], f"[{notes.index(cells[-1]) + 1}]") for cells in table(document)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text += ["", *(f"[{number}] cold: {note}" for number, note in enumerate(notes, 1))]
    return "\n".join([*text, *_remarks(document)])


def _remarks(document: dict[str, Any]) -> list[str]:
    remarks = [f"{name}: not run, {why}" for name, why in document["skipped"].items()]
    return remarks + [f"{name}: FAILED: {why}" for name, why in document["failed"].items()]


def markdown(document: dict[str, Any]) -> str:
    """Return machine, versions and a table whose lines fit 120 columns: medians, and the range of each ratio."""
    machine, found = document["machine"], document["versions"]
    here = ", ".join(f"{name} {_short(version)}" for name, version in found.items() if version)
    where = f"{machine['cpu']}, {machine['cores']} cores, {human(machine['memory'], 'B')} of memory"
    under = f"{machine['system']}, Linux {machine['kernel']}, Python {machine['python']}"
    how = f"{document['runs']} paired runs, as {document['user']}, {document['date']}"
    notes = list(dict.fromkeys(row["cold"] for row in document["rows"]))
    lines = [*textwrap.wrap(f"{where}; {under}; {here}. {how}.", 118, break_on_hyphens=False), ""]
    lines += [f"|{'|'.join(NARROW)}|", "|---" * len(NARROW) + "|"]
    for row in document["rows"]:
        peer = row["peer_samples"]
        theirs = human(peer["median"], row["unit"]) if peer else "not installed" if row["peer"] else ""
        target = f"{row['target']['text']} {_holds(row)}".rstrip() if row["target"] else ""
        name = (row["peer"] or "").replace("|", r"\|")
        cells = (str(row["number"]), row["what"], human(row["imgfs"]["median"], row["unit"]), name, theirs)
        lines.append(f"|{'|'.join((*cells, _compared(row), target, str(notes.index(row['cold']) + 1)))}|")
    lines += ["", "Cold:", "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join([*lines, *(f"\n{remark}" for remark in _remarks(document))])


def _short(version: str) -> str:
    """Return the number in what a program says of its version."""
    return next((word.strip(",") for word in version.split() if word[:1].isdigit()), version)


def write_markdown(document: dict[str, Any], path: Path) -> None:
    """Put the table into *path*, between the two marks if they are there."""
    text = path.read_text() if path.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    path.write_text(f"{before}{BEGIN}\n\n{markdown(document)}\n\n{END}{after}")
