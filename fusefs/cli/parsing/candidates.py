"""What the word at the cursor may become: from the grammar alone, and what only a look at the system tells."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fusefs.cli.parsing.grammar import Command, Operand, Option

NOTHING, FILES, FOLDERS = "nothing", "files", "folders"
"""What a shell is to complete itself: paths are its own to quote."""


class Candidate(NamedTuple):
    """A word, and what it means."""

    word: str
    meaning: str = ""


class Answer(NamedTuple):
    """What a shell is told."""

    paths: str
    """Whether what follows `prefix` is to be completed as a path."""
    prefix: str
    """What the word begins with and keeps: ``--log-file=``, ``docker-archive:``."""
    candidates: Sequence[Candidate]
    """What may follow the prefix, begun as it is begun."""


class Typed(NamedTuple):
    """What stands before the cursor."""

    command: Command
    values: Mapping[str, str]
    """Values of options by their last names, ``--host``."""
    pending: Option | None
    """The option whose value the word is."""
    operands: int
    """How many there are already."""
    options: bool
    """Whether the word may still be an option: no ``--`` was typed."""


Look = Callable[[str, Typed, str], Answer]
"""Completes a kind of value that is not in the grammar: its name there, what was typed, the word."""


def complete(program: Command, words: Sequence[str], look: Look) -> Answer:
    """Return what the last of *words* may become, which all follow the program's name."""
    typed = _typed(program, words[:-1])
    word = words[-1] if words else ""
    if typed is None:
        return Answer(NOTHING, "", ())
    if typed.pending is not None:
        return _value(typed.pending, typed, word, "", look)
    if typed.options and word.startswith("-") and not word.startswith("-:/"):
        return _option(typed, word, look)
    if typed.command.commands:
        return Answer(
            NOTHING, "", begun(word, (Candidate(name, one.summary) for name, one in typed.command.commands.items()))
        )
    operand = _operand(typed)
    if operand is None:
        return Answer(NOTHING, "", ())
    return _listed(operand.choices, word, "") if operand.choices else look(operand.name, typed, word)


def begun(word: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return those *candidates* that *word* begins, and that a line can hold."""
    return [one for one in candidates if one.word.startswith(word) and one.word.isprintable()]


def _typed(program: Command, words: Iterable[str]) -> Typed | None:
    """Return what *words* amount to, None where no command has such words."""
    command, pending, operands, options = program, None, 0, True
    values: dict[str, str] = {}
    for word in words:
        if pending is not None:
            values[pending.names[-1]] = word
            pending = None
        elif options and word == "--":
            options = False
        elif options and word.startswith("-") and word != "-" and not word.startswith("-:/"):
            for option, value in _options(command, word):
                pending = option if option.value and value is None else None
                if value is not None:
                    values[option.names[-1]] = value
        elif command.commands:
            if word not in command.commands:
                return None
            command = command.commands[word]
        else:
            operands += 1
    return Typed(command, values, pending, operands, options)


def _options(command: Command, word: str) -> Iterator[tuple[Option, str | None]]:
    """Yield the options in *word*, ``--host=URL`` or ``-fo``, with the value that is in it, too."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        if option := _named(command, name):
            yield option, value if equals else None
        return
    for place, letter in enumerate(word[1:], 2):
        option = _named(command, f"-{letter}")
        if option is not None:
            yield option, word[place:] or None if option.value else None
            if option.value:
                return


def _named(command: Command, name: str) -> Option | None:
    return next((option for option in command.options() if name in option.names), None)


def _option(typed: Typed, word: str, look: Look) -> Answer:
    """Return what a word that begins with a dash may become."""
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        name, value = word[:2], word[2:]
    option = _named(typed.command, name)
    if option is not None and option.value and (equals or value):
        return _value(option, typed, value, word.removesuffix(value), look)
    found = (Candidate(name, option.help) for option in typed.command.options() for name in option.names)
    return Answer(NOTHING, "", begun(word, found))


def _value(option: Option, typed: Typed, word: str, prefix: str, look: Look) -> Answer:
    if option.choices:
        return _listed(option.choices, word, prefix)
    answer = look(option.value, typed, word)
    return answer._replace(prefix=prefix + answer.prefix)


def _operand(typed: Typed) -> Operand | None:
    operands = typed.command.operands
    if typed.operands < len(operands):
        return operands[typed.operands]
    return operands[-1] if operands and operands[-1].repeats else None


def _listed(choices: Iterable[str], word: str, prefix: str) -> Answer:
    return Answer(NOTHING, prefix, begun(word, map(Candidate, choices)))


_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|[^"\\])*)\\?"?|\\(.?)""", re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\$`])')


def unquoted(word: str) -> str:
    """Return what a *word* stands for as it was typed, maybe in quotes not yet closed.  Nothing in it is expanded."""

    def plain(match: re.Match[str]) -> str:
        single, double, escaped = match.groups()
        return single or (_ESCAPED.sub(r"\1", double) if double else "") or escaped or ""

    return _QUOTED.sub(plain, word)
