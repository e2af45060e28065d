"""The grammar of a parser as data.  Help, the manual page and completions are generated from it."""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from fusefs.cli.parsing.parser import Parser


class Option(NamedTuple):
    """An option."""

    names: tuple[str, ...]
    value: str
    """The name of its value, empty if it takes no value."""
    choices: tuple[str, ...]
    help: str

    @property
    def shown(self) -> str:
        """Its names and its value: ``-H, --host URL``."""
        return ", ".join(self.names) + (f" {self.value}" if self.value else "")


class Operand(NamedTuple):
    """A positional argument."""

    key: str
    name: str
    choices: tuple[str, ...]
    help: str
    shown: str
    """The form in a synopsis: ``[PATH]``, ``[MOUNTPOINT…]``."""
    repeats: bool


class Group(NamedTuple):
    """Options under one title."""

    title: str
    options: tuple[Option, ...]
    named_only: bool
    """Help lists these options without explanations, which `imgfs help options` has."""


class Command(NamedTuple):
    """A command, or the whole program, with the commands below it."""

    name: str
    """Its full name: ``imgfs cache list``."""
    summary: str
    description: str
    operands: tuple[Operand, ...]
    groups: tuple[Group, ...]
    commands: dict[str, "Command"]
    notes: str
    examples: tuple[str, ...]

    @property
    def synopsis(self) -> str:
        """Its usage line."""
        rest = [operand.shown for operand in self.operands]
        return " ".join([self.name, *(("COMMAND",) if self.commands else ()), "[options]", *rest])

    def options(self) -> Iterator[Option]:
        """Yield the options of all groups."""
        for group in self.groups:
            yield from group.options


def grammar(parser: Parser, summary: str = "") -> Command:
    """Return the grammar of *parser*."""
    operands, commands, groups = [], {}, []
    for group in parser._action_groups:  # noqa: SLF001 - argparse has no public way to list actions
        options = []
        for action in group._group_actions:  # noqa: SLF001
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                commands = _commands(action)
            elif action.option_strings:
                options.append(_option(action))
            else:
                operands.append(_operand(action))
        if options:
            title = group.title or ""
            groups.append(Group(title, tuple(options), title in parser.named_only))
    return Command(
        name=parser.prog,
        summary=summary,
        description=parser.description or "",
        operands=tuple(operands),
        groups=tuple(groups),
        commands=commands,
        notes=parser.notes,
        examples=parser.examples,
    )


def _commands(action: "argparse._SubParsersAction[Parser]") -> dict[str, Command]:
    return {
        choice.dest: grammar(action.choices[choice.dest], choice.help or "")
        for choice in action._choices_actions  # noqa: SLF001
    }


def _option(action: argparse.Action) -> Option:
    value = _metavar(action) if action.nargs != 0 else ""
    return Option(tuple(action.option_strings), value, _choices(action), _help(action))


def _operand(action: argparse.Action) -> Operand:
    name = _metavar(action)
    shown = {"?": f"[{name}]", "*": f"[{name}…]"}.get(str(action.nargs), name)
    return Operand(action.dest, name, _choices(action), _help(action), shown, action.nargs == "*")


def _help(action: argparse.Action) -> str:
    """Return the help of an option or operand; argparse takes it for a format, in which ``%%`` is a per cent sign."""
    return (action.help or "").replace("%%", "%")


def _metavar(action: argparse.Action) -> str:
    if action.metavar is None:
        return "|".join(_choices(action)) or action.dest.upper()
    return str(action.metavar)


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))
