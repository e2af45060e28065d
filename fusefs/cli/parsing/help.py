"""The text of ``--help``.

argparse's own help is longer, and differs between versions of Python.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from fusefs.cli.output.stdout import terminal_columns
from fusefs.cli.parsing.grammar import Command, grammar
from fusefs.cli.parsing.parser import Parser

_MAX_WIDTH = 100
"""Columns: longer lines are hard to read."""
_MAX_COLUMN = 25
"""The last column at which the explanation of an option may begin."""


def help_text(parser: Parser) -> str:
    """Return the help of *parser*, in the width of the terminal."""
    command = grammar(parser)
    width = max(40, min(terminal_columns(), _MAX_WIDTH))
    usage = [] if parser.is_topic else [f"usage: {command.synopsis}", ""]
    blocks = [[*usage, *textwrap.wrap(command.description, width)], *_lists(command, width)]
    if command.notes:
        blocks.append(command.notes.splitlines())
    if command.examples:
        blocks.append(["examples:", *(f"  {example}" for example in command.examples)])
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _lists(command: Command, width: int) -> Iterator[list[str]]:
    """Yield the lists of arguments, commands and options, each with its title."""
    pairs: list[tuple[str, list[tuple[str, str]]]] = []
    explained = [(operand.name, operand.help) for operand in command.operands if operand.help]
    if explained:
        pairs.append(("arguments", explained))
    if command.commands:
        pairs.append(("commands", [(name, below.summary) for name, below in command.commands.items()]))
    pairs += [
        (group.title, [(option.shown, option.help) for option in group.options])
        for group in command.groups
        if not group.named_only
    ]
    column = min(_MAX_COLUMN, max((len(left) for _, rows in pairs for left, _ in rows), default=0) + 4)
    for title, rows in pairs:
        yield [f"{title}:", *_table(rows, column, width)]
    named = [
        f"{option.names[-1]} {option.value}".rstrip()
        for group in command.groups
        if group.named_only
        for option in group.options
    ]
    if named:
        told = textwrap.wrap("imgfs help options explains IMAGE and these options:", width)
        yield [*told, *_flow(named, width)]


def _table(rows: Iterable[Sequence[str]], column: int, width: int) -> Iterator[str]:
    for left, right in rows:
        first, *more = textwrap.wrap(right, width - column) or [""]
        if len(left) + 4 > column:
            yield f"  {left}"
            yield f"{'':{column}}{first}"
        else:
            yield f"  {left:{column - 2}}{first}".rstrip()
        yield from (f"{'':{column}}{line}" for line in more)


def _flow(words: Iterable[str], width: int) -> list[str]:
    """Return *words*, separated by commas, in lines; no word is broken."""
    joined = ", ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words)
    lines = textwrap.wrap(joined, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
