"""The argument parser of each command.  `help_text` writes its help."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from fusefs.errors import UsageError


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
        **_: Any,
    ) -> None:
        """Make the parser of the command *prog*.

        *notes* and *examples* stand at the end of the help.  *named_only* are titles of option groups that many
        commands share: help lists their options without explanations.
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

    def add_help_last(self, group: "argparse._ActionsContainer | None" = None) -> None:
        """Add ``--help`` as the last option of the list."""
        (group or self).add_argument(*self._help_option, action=_RequestHelp, help="show this help and exit")

    def error(self, message: str) -> NoReturn:
        """Raise the error, with a pointer to the help."""
        raise UsageError(f"{message}; see {self.prog} --help")

    def _parse_optional(self, arg_string: str) -> Any:
        """Accept ``-:/etc``, a path in the image on standard input, as an operand."""
        return None if arg_string.startswith("-:/") else super()._parse_optional(arg_string)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - argparse exports no other name
"""The action of argparse to which commands are added."""
