"""Tables that fit a terminal."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from fusefs.cli.output.stdout import aligned, clipped, column_widths

_LEAST = 12
"""Columns that a cell keeps, however narrow the terminal is."""
_GAP = 2
"""Columns between two cells."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"

Cut = Callable[[str, int], str]
"""Cuts a text to a number of columns."""


def cut_end(text: str, width: int) -> str:
    """Return *text* cut to *width* columns, its end replaced by an ellipsis."""
    return clipped(text, width)


def cut_beginning(text: str, width: int) -> str:
    """Return *text* cut to *width* columns, its beginning replaced by an ellipsis: a path is known by its end."""
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def lines_of(text: str, width: int, most: int = 4) -> list[str]:
    """Return a long *text* in lines of *width* columns; of more than *most*, the last one is cut."""
    lines = [text[at : at + width] for at in range(0, len(text), width)] or [""]
    return lines if len(lines) <= most else [*lines[: most - 1], clipped("".join(lines[most - 1 :]), width)]


def table(
    rows: Iterable[Sequence[str]],
    right: Collection[int] = (),
    columns: int | None = None,
    cuts: Mapping[int, Cut] | None = None,
) -> list[str]:
    """Return the lines of a table; the columns with the numbers in *right* are right-aligned.

    On a terminal with so many *columns*, the widest of the *cuts*, columns of the table by number, are cut until each
    line fits, but not below 12 columns.  None: nothing is cut.
    """
    rows = [tuple(row) for row in rows]
    widths = column_widths(rows)
    if columns is not None and cuts:
        _narrow(widths, columns, cuts)
        rows = [tuple(_cell(cell, number, widths, cuts) for number, cell in enumerate(row)) for row in rows]
    return [aligned(row, widths, right).rstrip() for row in rows]


def _narrow(widths: list[int], columns: int, cuts: Mapping[int, Cut]) -> None:
    """Lower the *widths* of the columns in *cuts*, the widest first, until a line has so many *columns*."""
    excess = sum(widths) + _GAP * (len(widths) - 1) - columns
    while excess > 0:
        widest = max(cuts, key=lambda number: widths[number])
        if widths[widest] <= _LEAST:
            return
        second = max((widths[number] for number in cuts if number != widest), default=0)
        lower = max(_LEAST, widths[widest] - excess, min(second, widths[widest] - 1))
        excess -= widths[widest] - lower
        widths[widest] = lower


def _cell(cell: str, number: int, widths: Sequence[int], cuts: Mapping[int, Cut]) -> str:
    return cuts[number](cell, widths[number]) if number in cuts else cell


def bar(share: float, width: int, *, fine: bool) -> str:
    """Return a bar of *share*, 0 to 1, of *width* columns; *fine*: in eighths of a column.  No share is invisible."""
    if not fine:
        return "#" * max(round(share * width), 1 if share else 0)
    eighths = max(round(share * width * 8), 1 if share else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
