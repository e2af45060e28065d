"""The argument parser of each command.  `help_text` writes its help."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeAlias

from fusefs.cli.parsing.nearest import nearest, no_command
from fusefs.errors import UsageError
from fusefs.text import listing, printable


class HelpRequested(Exception):
    """The command line contains ``--help``."""

    def __init__(self, parser: "Parser") -> None:
        super().__init__(parser.prog)
        self.parser = parser


class _RequestHelp(argparse.Action):
    """The option ``--help``."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, Parser)
        raise HelpRequested(parser)


def _checker(prog: str) -> argparse.HelpFormatter:
    """Return the formatter with which argparse checks each argument; without a width it would import shutil."""
    return argparse.HelpFormatter(prog, width=80)


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse prints a usage text and exits."""

    def __init__(  # noqa: PLR0913 - the parts of help
        self,
        *,
        prog: str,
        description: str,
        notes: str = "",
        examples: Sequence[str] = (),
        help_option: Sequence[str] = ("-h", "--help"),
        named_only: Sequence[str] = (),
        last_operand: str = "",
        values_of: Sequence[str] = (),
        is_topic: bool = False,
        **_: Any,
    ) -> None:
        """Make the parser of the command *prog*.

        *notes* and *examples* stand at the end of the help.  *named_only* are titles of option groups that many
        commands share: help lists their options without explanations.  *last_operand* is the operand that may be
        missing or repeated: argparse itself finds nothing of it behind an option.  *values_of*: options whose value
        may begin with a dash, as in find(1): ``-size -10k``.  *is_topic*: the parser is only for its help, of something
        else than a command.
        """
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            add_help=False,
            formatter_class=_checker,
        )
        self.notes = notes
        self.examples = tuple(examples)
        self.named_only = tuple(named_only)
        self._help_option = help_option
        self._last_operand = last_operand
        self._values_of = frozenset(values_of)
        self.is_topic = is_topic

    def add_help_last(self, group: "argparse._ActionsContainer | None" = None) -> None:
        """Add ``--help`` as the last option of the list."""
        (group or self).add_argument(*self._help_option, action=_RequestHelp, help="show this help and exit")

    def error(self, message: str) -> NoReturn:
        """Raise the error, with a pointer to the help."""
        option, ignored, _ = message.removeprefix("argument ").partition(": ignored explicit argument ")
        if ignored:  # a value of an option that takes none, or only that of another one: --prefetch=all
            values = [name.partition("=")[2] for name in self._option_string_actions if name.startswith(f"{option}=")]
            message = f"{option} takes {' or '.join(['no value', *values])}"
        raise UsageError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and report what is left over here, where the command is known."""
        namespace, rest = super().parse_known_args([*self._joined(args)] if self._values_of else args, namespace)
        unknown = [word for word in rest if word.startswith("-") and len(word) > 1]
        if unknown:
            raise UsageError(self._no_option(unknown[0].partition("=")[0]))
        rest = self._place(namespace, rest)
        if rest:
            raise UsageError(f"too many arguments: {listing([*map(printable, rest)], ' ')}; see {self.prog} --help")
        return namespace, []

    def _joined(self, words: Iterable[str]) -> Iterator[str]:
        """Yield *words*, those options joined with their values: ``-name=-x``; argparse takes ``-x`` for an option."""
        rest = iter(words)
        for word in rest:
            value = next(rest, None) if word in self._values_of else None
            yield word if value is None else f"{word}={value}"
            if word == "--":
                yield from rest

    def _place(self, namespace: argparse.Namespace, rest: list[str]) -> list[str]:
        """Give the operands in *rest* to the last operand of the command; return those that it does not take."""
        if self._last_operand and rest:
            found = getattr(namespace, self._last_operand)
            if isinstance(found, list):
                found += rest
                return []
            if found is None:
                setattr(namespace, self._last_operand, rest[0])
                return rest[1:]
        return rest

    def _no_option(self, word: str) -> str:
        """Return the message for an unknown option."""
        close = nearest(word, [name for name in self._option_string_actions if name.startswith("--")])
        meant = f"; did you mean {close}?" if close and word.startswith("--") else ";"
        return f"no option {printable(word)}{meant} {self.prog} --help lists all"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest command where argparse lists them all."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:  # noqa: SLF001
            group = self.prog.partition(" ")[2]
            raise UsageError(no_command(value, [*action.choices], group))
        super()._check_value(action, value)

    def _parse_optional(self, arg_string: str) -> Any:
        """Accept ``-:/etc``, a path in the image on standard input, as an operand."""
        if arg_string.startswith("-:/"):
            return None
        return super()._parse_optional(arg_string)


class _Unbuilt:
    """Stands for the parser of a command that was not called: whatever is added to it is nothing."""

    def __getattr__(self, name: str) -> "_Unbuilt":
        return self

    def __call__(self, *_: object, **__: object) -> "_Unbuilt":
        return self


class OneCommand:
    """Stands for the action of argparse to which commands are added, and lets it have one: building all takes 8 ms."""

    def __init__(self, commands: "Commands", name: str) -> None:
        """Let *commands* have the command *name*."""
        self._commands = commands
        self._name = name

    def add_parser(self, name: str, **keywords: Any) -> Any:
        """Return the parser of the command *name*, which is built only if it was called."""
        return self._commands.add_parser(name, **keywords) if name == self._name else _Unbuilt()


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - argparse exports no other name
"""The action of argparse to which commands are added."""
