"""Completions of the word at the cursor, from the grammar and from a function that knows the system."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fusefs.cli.parsing.grammar import Command, Operand, Option

NOTHING, FILES, FOLDERS = "nothing", "files", "folders"
"""The paths that the shell itself completes, since it knows how to quote them."""


class Completion(NamedTuple):
    """A word that completes the typed one, and its meaning."""

    word: str
    meaning: str = ""


class Answer(NamedTuple):
    """The answer to a completion script."""

    paths: str
    """NOTHING, FILES or FOLDERS: whether the shell completes a path after `prefix`."""
    prefix: str
    """The beginning of the word that stays as it is: ``--log-file=``, ``docker-archive:``."""
    completions: Sequence[Completion]
    """Completions of the rest of the word."""


class Typed(NamedTuple):
    """The words before the cursor."""

    command: Command
    values: Mapping[str, str]
    """Values of options by their last names, ``--host``."""
    pending: Option | None
    """The option whose value is being typed."""
    operands: int
    """The number of operands before the word."""
    options: bool
    """Whether the word may be an option: ``--`` has not been typed."""


Completer = Callable[[str, Typed, str], Answer]
"""Completes values that the grammar only names: the name (``MOUNTPOINT``), the words before the cursor, the word."""


def complete(program: Command, words: Sequence[str], completer: Completer) -> Answer:
    """Return the completions of the last of *words*, which are the arguments of the program."""
    typed = _typed(program, words[1:-1] if words[:1] == ["help"] and len(words) > 1 else words[:-1])
    word = words[-1] if words else ""
    if typed is None:
        return Answer(NOTHING, "", ())
    if typed.pending is not None:
        return _value(typed.pending, typed, word, "", completer)
    if typed.options and word.startswith("-") and not word.startswith("-:/"):
        return _option(typed, word, completer)
    if typed.command.commands:
        commands = [Completion(name, below.summary) for name, below in typed.command.commands.items()]
        if words[:1] == ["help"] and typed.command is program:
            commands.append(Completion("options", "options of all commands that open an image"))
        return Answer(NOTHING, "", matching(word, commands))
    operand = _operand(typed)
    if operand is None:
        return Answer(NOTHING, "", ())
    return _listed(operand.choices, word, "") if operand.choices else completer(operand.name, typed, word)


def matching(word: str, completions: Iterable[Completion]) -> list[Completion]:
    """Return those *completions* that begin with *word* and are printable, so that each fits in one line."""
    return [found for found in completions if found.word.startswith(word) and found.word.isprintable()]


def _typed(program: Command, words: Iterable[str]) -> Typed | None:
    """Parse *words*; return None if there is no such command."""
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
    """Yield the options in *word*, such as ``--host=URL`` or ``-fo``, each with its value if *word* contains it."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        if option := _named(command, name):
            yield option, value if equals else None
        return
    if option := _named(command, word):  # also one as in find(1): ``-name``
        yield option, None
        return
    for place, letter in enumerate(word[1:], 2):
        option = _named(command, f"-{letter}")
        if option is not None:
            yield option, word[place:] or None if option.value else None
            if option.value:
                return


def _named(command: Command, name: str) -> Option | None:
    return next((option for option in command.options() if name in option.names), None)


def _option(typed: Typed, word: str, completer: Completer) -> Answer:
    """Complete a word that begins with a dash."""
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        name, value = word[:2], word[2:]
    option = _named(typed.command, name)
    if option is not None and option.value and (equals or value):
        return _value(option, typed, value, word.removesuffix(value), completer)
    found = (Completion(name, option.help) for option in typed.command.options() for name in option.names)
    return Answer(NOTHING, "", matching(word, found))


def _value(option: Option, typed: Typed, word: str, prefix: str, completer: Completer) -> Answer:
    if option.choices:
        return _listed(option.choices, word, prefix)
    answer = completer(option.value, typed, word)
    return answer._replace(prefix=prefix + answer.prefix)


def _operand(typed: Typed) -> Operand | None:
    operands = typed.command.operands
    if typed.operands < len(operands):
        return operands[typed.operands]
    return operands[-1] if operands and operands[-1].repeats else None


def _listed(choices: Iterable[str], word: str, prefix: str) -> Answer:
    return Answer(NOTHING, prefix, matching(word, map(Completion, choices)))


_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|[^"\\])*)\\?"?|\\(.?)""", re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\$`])')


def unquoted(word: str) -> str:
    """Return *word* without shell quotes, which may still be open.  Nothing in it is expanded."""

    def plain(match: re.Match[str]) -> str:
        single, double, escaped = match.groups()
        return single or (_ESCAPED.sub(r"\1", double) if double else "") or escaped or ""

    return _QUOTED.sub(plain, word)
